"""The nft scripts, word for word, as an operator would read them. `make golden` writes them anew: read the diff."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.plan import FlowKey, PlanSettings, build_plan, plan_of
from agent.plan.render import nft
from agent.pods import PodRef
from tests.golden.agent.steerings import (
    DEFAULT,
    EVERYTHING,
    NODE,
    PROBED_NODE,
    SIDECAR,
    SIDECAR_OF_MANY,
    TRANSPARENT_SIDECAR,
)

HERE = Path(__file__).parent
POD = PodRef("u-1", "default", "web")
PLAN = build_plan(POD, PlanSettings())


def flow(local: str, local_port: int, remote: str, remote_port: int) -> FlowKey:
    return ip_address(local), local_port, ip_address(remote), remote_port


V4 = (flow("10.0.0.5", 40000, "10.0.0.9", 80), flow("10.0.0.5", 8080, "10.0.0.9", 50000))
V6 = (flow("fd00::5", 40000, "fd00::9", 80), flow("fd00::5", 8080, "fd00::9", 50000))

SCENARIOS = {
    "fresh": nft.install_script(PLAN, (), replace=False),
    "fresh-grandfathered-ipv4": nft.install_script(PLAN, V4, replace=False),
    "fresh-grandfathered-ipv6": nft.install_script(PLAN, V6, replace=False),
    "replace": nft.install_script(PLAN, (*V4, *V6), replace=True),
    "linkerd-ports": nft.install_script(
        build_plan(POD, PlanSettings(outbound_port=4140, inbound_port=4143)), (), replace=False
    ),
    "probes": nft.install_script(plan_of(DEFAULT, PROBED_NODE), (), replace=False),
    "everything": nft.install_script(plan_of(EVERYTHING, NODE), (), replace=False),
    "sidecar": nft.install_script(plan_of(DEFAULT, SIDECAR), (), replace=False),
    "sidecar-everything": nft.install_script(plan_of(EVERYTHING, SIDECAR_OF_MANY), (), replace=False),
    "sidecar-transparent": nft.install_script(plan_of(DEFAULT, TRANSPARENT_SIDECAR), (), replace=False),
    "sidecar-drain": nft.drain_script(plan_of(DEFAULT, SIDECAR)),
    "opened-meanwhile-ipv4": nft.grandfather_script(V4),
    "opened-meanwhile-ipv6": nft.grandfather_script(V6),
    "ended": nft.forget_script((*V4, *V6)),
    "drain": nft.drain_script(PLAN),
    "remove": nft.remove_script(),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_script(scenario: str) -> None:
    golden = HERE / f"{scenario}.nft"
    script = SCENARIOS[scenario]
    if os.environ.get("REFRESH_GOLDEN"):
        golden.write_text(script)
    assert script == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in HERE.glob("*.nft")} == set(SCENARIOS)


def test_the_order_and_number_of_the_connections_given_does_not_matter() -> None:
    assert nft.install_script(PLAN, (*reversed(V4), *V4), replace=False) == SCENARIOS["fresh-grandfathered-ipv4"]


def test_nothing_opened_or_ended_is_an_empty_script() -> None:
    assert nft.grandfather_script(()) == nft.forget_script(()) == ""


def test_each_rule_of_the_plan_is_one_line_with_counter_and_comment() -> None:
    lines = [line for line in SCENARIOS["fresh"].splitlines() if "comment" in line]
    assert all(" counter " in f" {line.strip()} " for line in lines)
    ids = [line.rpartition('comment "headgate:')[2].rstrip('"') for line in lines]
    assert sorted(ids) == sorted(rule.rule_id for rule in PLAN.all_rules)


def test_the_expression_shown_to_people_is_the_rule_without_counter_and_comment() -> None:
    script = SCENARIOS["fresh"].replace(" counter", "").replace("\tcounter ", "\t")
    for rule in PLAN.all_rules:
        assert f'\t{nft.rule_expression(rule)} comment "headgate:{rule.rule_id}"\n' in script
