"""How an inventory is told; nothing that a pod wrote reaches a terminal raw."""

import json

from agent.ruleset import view
from agent.ruleset.inventory import (
    HeldChain,
    HeldRule,
    HeldTable,
    Inventory,
    PolicyRule,
    Routing,
    TableRoute,
    Tool,
)
from agent.ruleset.meanings import meanings_for
from agent.ruleset.whose import told_apart

HOSTILE = "x\x1b[2J\n"
TABLE = told_apart(
    HeldTable(
        Tool.NFT,
        "inet",
        "headgate",
        (
            HeldChain(
                "nat-output",
                (
                    HeldRule("redirect to :15001", "headgate:out-capture", 3, 180),
                    HeldRule("accept", "headgate:of-another-version", 0, 0),
                    HeldRule(f"jump {HOSTILE}", HOSTILE),
                ),
                "nat output, priority -100",
                "accept",
            ),
            HeldChain("nat-prerouting", (), "nat prerouting, priority -100", "accept"),
            HeldChain("empty"),
        ),
        ("set grandfathered4",),
    )
)
SAVED = HeldTable(Tool.IPTABLES_NFT, "ip", "nat", (HeldChain("INPUT", (), "nat input", "accept"),))


def meaning(rule_id: str) -> str | None:
    return {"out-capture": "meets the proxy"}.get(rule_id)


def test_rows_say_whose_and_what_for() -> None:
    assert view.rows(TABLE, meaning) == [
        ("nat-output", "3", "ours", "out-capture: meets the proxy"),
        ("nat-output", "0", "ours", "of-another-version: a rule of another version"),
        ("nat-output", "-", "unknown", r"jump x\x1b[2J\n  # x\x1b[2J\n"),
        ("nat-prerouting", "-", "ours", "(no rule; nat prerouting, priority -100, policy accept)"),
    ]


def test_headings_name_tool_family_table_and_whose() -> None:
    assert view.heading(TABLE) == "nft table inet headgate (ours, unknown)"
    assert view.heading(told_apart(SAVED)) == "iptables-nft table ip nat (unknown)"


def test_built_in_chains_of_iptables_that_do_nothing_are_not_shown() -> None:
    assert view.rows(SAVED, meaning) == []
    dropping = HeldTable(Tool.IPTABLES_NFT, "ip", "nat", (HeldChain("INPUT", (), "nat input", "drop"),))
    assert view.rows(dropping, meaning) == [("INPUT", "-", "unknown", "(no rule; nat input, policy drop)")]


def test_json_has_everything_printable() -> None:
    routing = Routing(
        (PolicyRule("ip", 500, f"from all iif {HOSTILE}", "unknown"),),
        (TableRoute("ip6", "local default dev lo", "headgate"),),
        ("::6",),
    )
    shown = view.as_json(Inventory((TABLE,), routing, (f"iptables: {HOSTILE}",)), meaning)
    assert "\\u001b" not in json.dumps(shown) and "\\n" not in json.dumps(shown).replace("\\\\n", "")
    rule = shown["tables"][0]["chains"][0]["rules"][0]
    assert rule == {
        "whose": "headgate",
        "id": "out-capture",
        "meaning": "meets the proxy",
        "rule": "redirect to :15001",
        "comment": "headgate:out-capture",
        "packets": 3,
        "bytes": 180,
    }
    foreign = shown["tables"][0]["chains"][0]["rules"][2]
    assert (foreign["id"], foreign["meaning"], foreign["packets"]) == (None, None, None)
    assert shown["ip_rules"][0]["preference"] == 500 and shown["loopback_addresses"] == ["::6"]


def test_routing_rows_say_whose() -> None:
    routing = Routing((PolicyRule("ip", 32764, "from all lookup 100", "headgate"),), (), ("::6",))
    assert view.routing_rows(Inventory(routing=routing)) == [
        ("ip rule 32764", "ip", "ours", "from all lookup 100"),
        ("address on lo", "ip6", "unknown", "::6"),
    ]


def test_every_rule_that_a_plan_can_have_has_a_meaning_here() -> None:
    from agent.plan import PlanSettings, Steering, plan_of
    from tests.golden.agent import steerings as known

    for settings in (known.NODE, known.SIDECAR, known.SIDECAR_OF_MANY, known.TRANSPARENT_SIDECAR):
        for wanted in (known.DEFAULT, known.EVERYTHING):
            plan = plan_of(wanted, settings)
            rules = (*plan.all_rules, *plan.drain)
            told = meanings_for(rule.rule_id for rule in rules)
            assert [rule.rule_id for rule in rules if told(rule.rule_id) is None] == []
    node = plan_of(Steering(), PlanSettings())
    told = meanings_for(rule.rule_id for rule in node.all_rules)
    assert {rule.rule_id: told(rule.rule_id) for rule in node.all_rules} == {
        rule.rule_id: rule.meaning for rule in node.all_rules
    }
    assert told("entry+table") is not None and told("of-another-version") is None
