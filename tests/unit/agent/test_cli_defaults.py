"""`headgate agent --exclude-outbound-ports …`: what is steered of pods that say nothing else."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli.defaults import default_options, read
from agent.plan import InvalidPlan, PlanSettings, Steering, build_plan
from agent.plan.ranges import Ranges
from agent.plan.steering import UdpPolicy
from agent.pods import PodRef

DOCS = Path(__file__).parents[3] / "docs" / "annotations.md"


@click.command()
@default_options
def command(defaults: Steering) -> None:
    click.echo(repr(defaults))


def test_without_options_everything_is_steered() -> None:
    assert CliRunner().invoke(command, []).output.strip() == repr(Steering())


def test_options_and_environment_say_what_annotations_would() -> None:
    given = CliRunner().invoke(command, ["--exclude-outbound-ports", "25,3000-3005"], env={"HEADGATE_UDP": "deny-443"})
    assert given.output.strip() == repr(
        Steering(exclude_outbound_ports=Ranges.of(25, (3000, 3005)), udp=UdpPolicy.DENY_443)
    )


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--exclude-outbound-ports", "10-5"], "Invalid value for --exclude-outbound-ports: '10-5' ends before"),
        (["--exclude-interfaces", "a;b"], "Invalid value for --exclude-interfaces: 'a;b' is no interface name"),
        (["--include-gids", "5", "--exclude-gids", "6"], "Invalid value for --include-gids / --exclude-gids: groups 5"),
        (["--udp", "never"], "Invalid value for --udp: 'never' is no UDP policy"),
    ],
)
def test_wrong_usage_names_the_option(options: list[str], error: str) -> None:
    result = CliRunner().invoke(command, options)
    assert result.exit_code == 2 and error in result.output


def test_an_annotation_that_contradicts_a_default_names_both() -> None:
    settings = PlanSettings(defaults=read({"exclude-outbound-ports": "25"}))
    pod = PodRef("u", "default", "web", annotations=(("headgate.io/include-outbound-ports", "25"),))
    with pytest.raises(InvalidPlan) as refused:
        build_plan(pod, settings)
    assert refused.value.field == "annotation headgate.io/include-outbound-ports, exclude_outbound_ports"


def test_the_page_of_annotations_tells_of_the_options() -> None:
    assert re.search(r"`headgate agent --exclude-outbound-cidrs …`", DOCS.read_text())
