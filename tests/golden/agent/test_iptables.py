"""What iptables-restore and ip6tables-restore are given, word for word. `make golden` writes it anew: read the diff."""

import itertools
import os
from pathlib import Path

import pytest

from agent.plan import IPFamily, plan_of
from agent.plan.drift import Form
from agent.plan.render.iptables import guard_of, restore_text, tables_of, with_older
from tests.golden.agent.steerings import (
    DEFAULT,
    EVERYTHING,
    NODE,
    PROBED_NODE,
    SIDECAR,
    SIDECAR_OF_MANY,
    TRANSPARENT_SIDECAR,
)
from tests.golden.agent.test_nft import V4, V6

HERE = Path(__file__).parent
TOOL = {IPFamily.IPV4: "iptables", IPFamily.IPV6: "ip6tables"}
PLANS = {
    "fresh": plan_of(DEFAULT, NODE),
    "probes": plan_of(DEFAULT, PROBED_NODE),
    "everything": plan_of(EVERYTHING, NODE),
    "sidecar": plan_of(DEFAULT, SIDECAR),
    "sidecar-everything": plan_of(EVERYTHING, SIDECAR_OF_MANY),
    "sidecar-transparent": plan_of(DEFAULT, TRANSPARENT_SIDECAR),
}


def texts(family: IPFamily) -> dict[str, str]:
    found = {name: restore_text(tables_of(plan, Form.STEERING, family)) for name, plan in PLANS.items()}
    fresh = tables_of(PLANS["fresh"], Form.STEERING, family)
    found["fresh-grandfathered"] = restore_text(with_older(fresh, (*V6, *V4, *V4), family))
    for name in ("fresh", "sidecar"):
        found[f"{name}-drain"] = restore_text(tables_of(PLANS[name], Form.DRAIN, family))
        found[f"{name}-guard"] = restore_text((guard_of(PLANS[name], family),))
    return found


SCENARIOS = {f"{name}.{TOOL[family]}": text for family in IPFamily for name, text in texts(family).items()}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_restore_text(scenario: str) -> None:
    golden = HERE / scenario
    if os.environ.get("REFRESH_GOLDEN"):
        golden.write_text(SCENARIOS[scenario])
    assert SCENARIOS[scenario] == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for tool in TOOL.values() for path in HERE.glob(f"*.{tool}")} == set(SCENARIOS)


@pytest.mark.parametrize("name", PLANS)
def test_every_rule_of_the_plan_has_a_rule_in_one_family_at_least(name: str) -> None:
    text = "".join(SCENARIOS[f"{name}.{tool}"] for tool in TOOL.values())
    grandfathered = {rule.rule_id for rule in PLANS[name].all_rules if "grandfathered" in rule.rule_id}
    missing = {rule.rule_id for rule in PLANS[name].all_rules if f"headgate:{rule.rule_id} " not in text}
    assert missing == grandfathered  # which have one a connection


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_family_has_addresses_of_the_other(scenario: str) -> None:
    wrong = ":" if scenario.endswith(".iptables") else "."
    words = SCENARIOS[scenario].split()
    addresses = [after for option, after in itertools.pairwise(words) if option in ("-s", "-d")]
    assert [address for address in addresses if wrong in address] == []
