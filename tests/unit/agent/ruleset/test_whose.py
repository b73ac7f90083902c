"""Whose a table, chain or rule is: ours only by what it says itself, others' by the names that their makers use."""

import pytest

from agent.ruleset.inventory import HEADGATE, UNKNOWN, HeldChain, HeldRule, HeldTable, Tool, owns
from agent.ruleset.whose import maker_of, makers, told_apart

OURS = HeldRule("tcp dport 80 accept", "headgate:out-capture")


def nft(name: str, *rules: HeldRule, family: str = "inet", chain: str = "c") -> HeldTable:
    return told_apart(HeldTable(Tool.NFT, family, name, (HeldChain(chain, rules),)))


def iptables(chain: str, *rules: HeldRule, hook: str = "") -> HeldTable:
    return told_apart(HeldTable(Tool.IPTABLES_NFT, "ip", "nat", (HeldChain(chain, rules, hook),)))


@pytest.mark.parametrize(
    ("name", "maker"),
    [
        ("ISTIO_OUTPUT", "istio"),
        ("ISTIO_PRERT", "istio ambient"),
        ("istio-ambient-nat", "istio ambient"),
        ("istio-proxy-nat", "istio"),
        ("PROXY_INIT_REDIRECT", "linkerd"),
        ("KUMA_MESH_OUTBOUND", "kuma"),
        ("CONSUL_PROXY_INBOUND", "consul"),
        ("KUBE-SERVICES", "kube-proxy"),
        ("DOCKER_OUTPUT", "docker"),
        ("cali-PREROUTING", "calico"),
        ("CNI-HOSTPORT-DNAT", "CNI plugins"),
        ("HEADGATE_CAPTURE_OUT", HEADGATE),
        ("OUTPUT", UNKNOWN),
        ("MY_ISTIO_OUTPUT", UNKNOWN),
        ("headgate", UNKNOWN),
    ],
)
def test_known_makers_are_named(name: str, maker: str) -> None:
    assert maker_of(name) == maker


@pytest.mark.parametrize("name", ["headgate", "headgate-anchor"])
def test_our_tables_are_ours_also_when_they_are_empty(name: str) -> None:
    assert nft(name).whose == HEADGATE


@pytest.mark.parametrize(
    ("table", "ours"),
    [
        (nft("headgate-v0", OURS), True),
        (nft("headgate_old", OURS, family="ip"), True),
        (nft("headgate-users-own", HeldRule("accept", "mine")), False),
        (nft("headgate-users-own"), False),
        (nft("headgate", family="ip"), False),
        (nft("not-headgate", OURS), False),
        (nft("headgate;flush ruleset", OURS), False),
        (nft("headgate\nx", OURS), False),
    ],
)
def test_another_versions_table_is_ours_by_its_name_and_what_its_rules_say(table: HeldTable, ours: bool) -> None:
    assert (table.whose == HEADGATE) == ours
    assert owns(table) == ours


def test_a_foreign_rule_in_our_chain_is_not_ours() -> None:
    table = nft("headgate", OURS, HeldRule("accept"), HeldRule("jump KUBE-X"))
    assert [rule.whose for _, rule in table.rules] == [HEADGATE, UNKNOWN, "kube-proxy"]


def test_in_iptables_tables_belong_to_nobody_and_rules_to_who_made_them() -> None:
    table = iptables(
        "OUTPUT",
        HeldRule("-j HEADGATE_CAPTURE_OUT", "headgate:entry"),
        HeldRule("-j HEADGATE_CAPTURE_OUT"),
        HeldRule("-p tcp -j REDIRECT", "headgate:old"),
        HeldRule("-p tcp -j ISTIO_OUTPUT"),
        HeldRule("-p tcp -j ACCEPT", "proxy-init/x"),
        HeldRule("-p tcp -j ACCEPT"),
        hook="nat output",
    )
    whose = [rule.whose for _, rule in table.rules]
    assert whose == [HEADGATE, HEADGATE, HEADGATE, "istio", "linkerd", UNKNOWN]
    assert table.whose == UNKNOWN and owns(table)


def test_a_comment_that_speaks_of_our_chain_makes_a_rule_no_rule_of_ours() -> None:
    spoken = HeldRule('-m string --string " -j HEADGATE_X" --algo bm -j ACCEPT', " -j HEADGATE_X")
    assert not owns(iptables("OUTPUT", spoken, hook="nat output"))


def test_chains_with_our_prefix_in_a_foreign_nft_table_are_not_ours() -> None:
    table = nft("theirs", HeldRule("accept", "headgate:x"), chain="HEADGATE_X")
    assert not owns(table)


def test_makers_are_everybody_who_is_known() -> None:
    tables = (nft("kube-proxy"), iptables("ISTIO_PRERT"), iptables("OUTPUT", HeldRule("-j PROXY_INIT_OUTPUT")))
    assert makers(tables) == {"kube-proxy", "istio ambient", "linkerd"}
