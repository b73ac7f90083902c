"""Settings that cannot be: refused with the setting's name before anything is opened or changed."""

import pytest

from agent.lab.namespaces import Netns
from agent.lab.node import Lab, headgate
from agent.plan import InvalidPlan, PlanSettings
from tests.netns.life import kernel


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("agent", "--metrics-port", "70000"),
        ("agent", "--drain-s", "-1"),
        ("proxy", "--metrics-port", "65536"),
        ("proxy", "--ready-port", "http"),
    ],
)
def test_setting_out_of_range_is_named_and_nothing_starts(bare_lab: Lab, command: str, option: str, value: str) -> None:
    files = ["--run-dir", str(bare_lab.run_directory)]
    done = bare_lab.node.run([*headgate(), command, *files, option, value], check=False)
    assert done.returncode == 2
    assert option in done.stderr and value in done.stderr
    assert list(bare_lab.run_directory.iterdir()) == []
    _untouched(bare_lab)


@pytest.mark.parametrize("command", ["agent", "proxy"])
def test_metrics_port_that_is_taken_ends_the_start_with_its_number_and_touches_no_pod(
    bare_lab: Lab, command: str
) -> None:
    port = 15014 if command == "agent" else 15020
    files = ["--run-dir", str(bare_lab.run_directory)]
    if command == "agent":
        files += ["--pods-file", str(bare_lab.pods_file)]
    with bare_lab.node.listen("0.0.0.0", port):
        done = bare_lab.node.run([*headgate(), command, *files], check=False)
    assert done.returncode == 1
    assert str(port) in done.stderr and "Address already in use" in done.stderr
    assert "--metrics-port" in done.stderr
    _untouched(bare_lab)


@pytest.mark.parametrize("port", [0, -1, 65536])
@pytest.mark.parametrize("field", ["outbound_port", "inbound_port", "tunnel_port"])
def test_proxy_port_out_of_range_makes_no_plan(field: str, port: int) -> None:
    with pytest.raises(InvalidPlan, match=rf"{field}: {port} is no TCP port: use 1 to 65535"):
        PlanSettings(**{field: port})


def _untouched(lab: Lab) -> None:
    places: list[Netns] = [lab.node, *(pod.netns for pod in lab.pods)]
    assert [kernel.rules(netns) for netns in places] == [kernel.NO_RULES] * len(places)
