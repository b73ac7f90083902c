"""What goes and what stays, decided."""

from agent.ruleset.clean import removal
from agent.ruleset.inventory import (
    HEADGATE,
    UNKNOWN,
    HeldChain,
    HeldRule,
    HeldTable,
    Inventory,
    PolicyRule,
    Routing,
    TableRoute,
    Tool,
)
from agent.ruleset.whose import AMBIENT, told_apart

OURS = HeldRule("counter accept", "headgate:x")
RULE = PolicyRule("ip", 32764, "from all fwmark 0x111/0xfff lookup 100", HEADGATE)
ROUTE = TableRoute("ip", "local default dev lo proto static", HEADGATE)


def tables(*found: HeldTable) -> tuple[HeldTable, ...]:
    return tuple(told_apart(table) for table in found)


NFT = HeldTable(Tool.NFT, "inet", "headgate", (HeldChain("c", (OURS, OURS)),))
DOCKER = HeldTable(Tool.NFT, "inet", "docker-bridges", (HeldChain("c", (HeldRule("accept"),)),))
JUMP = HeldRule("-j HEADGATE_CAPTURE_OUT", "headgate:entry")
LEGACY = HeldTable(
    Tool.IPTABLES_LEGACY,
    "ip6",
    "nat",
    (
        HeldChain("OUTPUT", (JUMP, HeldRule("-p tcp -j ISTIO_OUTPUT")), "nat output", "accept"),
        HeldChain("HEADGATE_CAPTURE_OUT", (OURS,)),
        HeldChain("ISTIO_OUTPUT"),
    ),
)


def test_nothing_of_ours_is_nothing_to_remove() -> None:
    assert removal(Inventory()).is_nothing
    assert removal(Inventory(tables(DOCKER))).is_nothing


def test_tables_go_whole_and_of_shared_ones_only_what_is_ours() -> None:
    found = removal(Inventory(tables(NFT, DOCKER, LEGACY)))
    assert found.nft_tables == (("inet", "headgate"),)
    assert found.iptables == (Tool.IPTABLES_LEGACY,)
    assert found.words == (
        "nft table inet headgate (2 rules)",
        "iptables-legacy table nat (IPv6): chain HEADGATE_CAPTURE_OUT (1 rule)",
        "iptables-legacy table nat (IPv6): in chain OUTPUT: -j HEADGATE_CAPTURE_OUT",
    )
    assert found.kept == ()


def test_the_return_path_goes_also_when_it_is_all_that_is_left() -> None:
    found = removal(Inventory(routing=Routing((RULE,), (ROUTE,))))
    assert found.return_path and found.nft_tables == ()
    assert found.words == (
        "ip rule 32764: from all fwmark 0x111/0xfff lookup 100 (IPv4)",
        "ip route local default dev lo proto static, table 100 (IPv4)",
    )


def test_other_peoples_rules_and_routes_stay_and_are_not_spoken_of() -> None:
    others = Routing((PolicyRule("ip", 500, "from all lookup 100", UNKNOWN),), (TableRoute("ip", "default", UNKNOWN),))
    assert removal(Inventory(routing=others)).is_nothing


def test_istio_ambients_return_path_stays_and_is_told() -> None:
    shared = PolicyRule(RULE.family, RULE.preference, RULE.text, AMBIENT)
    found = removal(Inventory(tables(NFT), Routing((shared,), ())))
    assert not found.return_path and found.nft_tables
    assert found.kept == (
        "ip rule 32764: from all fwmark 0x111/0xfff lookup 100 (IPv4): istio ambient's rules use the very same",
    )


def test_the_passthrough_address_goes_unless_a_peer_may_use_it() -> None:
    assert removal(Inventory(routing=Routing(loopback_addresses=("::6",)))).loopback_addresses == ("::6",)
    found = removal(Inventory(tables(LEGACY), Routing(loopback_addresses=("::6", "fd00::1"))))
    assert found.loopback_addresses == ()
    assert found.kept == ("address ::6/128 on lo: istio may use it",)
    assert removal(Inventory(routing=Routing(loopback_addresses=("fd00::1",)))).is_nothing
