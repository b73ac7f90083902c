"""B53: who else writes the bits of a mark that ours go by, or leads our packets elsewhere."""

import pytest

from agent.ruleset.conflicts import conflicts
from agent.ruleset.inventory import (
    HEADGATE,
    HeldChain,
    HeldRule,
    HeldTable,
    Inventory,
    PolicyRule,
    Routing,
    TableRoute,
    Tool,
)


def told(text: str, tool: Tool = Tool.NFT, whose: str = "unknown") -> tuple[str, ...]:
    chain = HeldChain("output", (HeldRule(text, whose=whose),))
    return conflicts(Inventory((HeldTable(tool, "ip", "mangle", (chain,)),)))


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("meta mark set 0x00000539", "bits 0xfff of the packet mark"),
        ("tcp dport 80 meta mark set 0x00010000 counter packets 0 bytes 0", "bits 0xfff of the packet mark"),
        ("meta mark set meta mark | 0x00000010", "bits 0x10 of the packet mark"),
        ("meta mark set meta mark & 0xfffff0ff | 0x00000100 accept", "bits 0xf00 of the packet mark"),
        ("ct mark set ct mark ^ 0x00000001", "bits 0x1 of the connection mark"),
        ("ct mark set meta mark", "bits 0xfff of the connection mark"),
        ("meta mark set ct mark", "bits 0xfff of the packet mark"),
    ],
)
def test_b53_what_nft_writes_into_our_bits_is_told(text: str, bits: str) -> None:
    (conflict,) = told(text)
    assert conflict.startswith("nft table ip mangle, chain output: `") and bits in conflict
    assert "let it use bits above 0xfff" in conflict


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("-p tcp -j MARK --set-xmark 0x539/0xfff", "bits 0xfff of the packet mark"),
        ("-j MARK --set-xmark 0x10/0x0", "bits 0x10 of the packet mark"),
        ("-j MARK --set-xmark 0x10000/0xffffffff", "bits 0xfff of the packet mark"),
        ("-j CONNMARK --set-xmark 0x111/0xfff", "bits 0xfff of the connection mark"),
        ("-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", "bits 0xff of the packet mark"),
        ("-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xf", "bits 0xf of the connection mark"),
    ],
)
@pytest.mark.parametrize("tool", [Tool.IPTABLES_NFT, Tool.IPTABLES_LEGACY])
def test_b53_what_iptables_writes_into_our_bits_is_told(tool: Tool, text: str, bits: str) -> None:
    (conflict,) = told(text, tool)
    assert bits in conflict


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        (Tool.NFT, "meta mark set meta mark | 0x00010000"),
        (Tool.NFT, "meta mark set meta mark & 0x0000ffff | 0xab000000"),
        (Tool.NFT, "meta mark 0x00000539 accept"),
        (Tool.NFT, 'meta mark 0x1 comment "meta mark set 0x1"'),
        (Tool.IPTABLES_NFT, "-j MARK --set-xmark 0x4000/0x4000"),
        (Tool.IPTABLES_LEGACY, "-j CONNMARK --restore-mark --nfmask 0xffff0000 --ctmask 0xffff0000"),
        (Tool.IPTABLES_NFT, "-m mark --mark 0x539/0xfff -j ACCEPT"),
    ],
)
def test_b53_other_bits_and_who_only_looks_are_no_conflict(tool: Tool, text: str) -> None:
    assert told(text, tool) == ()


def test_b53_our_own_rules_are_none() -> None:
    assert told("meta mark set meta mark & 0xfffff000 | 0x00000111", whose=HEADGATE) == ()


def _routed(*rules: PolicyRule, routes: tuple[TableRoute, ...] = ()) -> tuple[str, ...]:
    return conflicts(Inventory((), Routing(rules, routes)))


def test_b53_a_routing_rule_that_takes_our_packets_is_told() -> None:
    (conflict,) = _routed(PolicyRule("ip", 100, "from all fwmark 0x539/0xfff lookup 200"))
    assert conflict.startswith("ip rule 100 (ip): `from all fwmark 0x539/0xfff lookup 200` takes packets")
    (conflict,) = _routed(PolicyRule("ip6", 100, "from all fwmark 0x11/0xff lookup 200"))
    assert "mark 0x111 elsewhere" in conflict


@pytest.mark.parametrize(
    "rule",
    [
        PolicyRule("ip", 100, "from all fwmark 0x10000/0x10000 lookup 200"),
        PolicyRule("ip", 100, "from all fwmark 0x200/0xf00 lookup 200"),
        PolicyRule("ip", 32765, "from all fwmark 0x111/0xfff lookup 200"),
        PolicyRule("ip", 100, "from 10.0.0.0/8 lookup 200"),
        PolicyRule("ip", 32764, "from all fwmark 0x111/0xfff lookup 100", HEADGATE),
    ],
    ids=lambda rule: rule.text,
)
def test_b53_others_that_do_not_are_none(rule: PolicyRule) -> None:
    assert _routed(rule) == ()


def test_b53_a_route_of_somebody_elses_in_our_table_is_told() -> None:
    assert (
        "route table 100 (ip): `default via 10.0.0.1`" in _routed(routes=(TableRoute("ip", "default via 10.0.0.1"),))[0]
    )
    assert _routed(routes=(TableRoute("ip", "local default dev lo proto static", HEADGATE),)) == ()
