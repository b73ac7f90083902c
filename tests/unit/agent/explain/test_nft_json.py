"""A listing of nft as tables, chains and sets: whole, in part, empty, cut off, and of things with hostile names."""

import json
from typing import Any

import pytest

from agent.explain.nft_json import holds_xt, tables
from agent.explain.statements import (
    ACCEPT,
    Constant,
    Elements,
    Match,
    Nat,
    Opaque,
    Perhaps,
    Span,
    Verdict,
    VerdictMap,
)
from agent.explain.tables import Base, ChainType, Hook, Tool
from tests.unit.agent.explain.nft_listing import document, only, rule

ACCEPTS = {"accept": None}
MARK = {"meta": {"key": "mark"}}
OWNER = {"xt": {"type": "match", "name": "owner"}}


def table(name: str = "t", family: str = "inet", **more: Any) -> dict[str, Any]:
    return {"table": {"family": family, "name": name, "handle": 7, **more}}


def chain(name: str = "c", **more: Any) -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "t", "name": name, "handle": 3, **more}}


def hooked(**more: Any) -> dict[str, Any]:
    return chain(**{"type": "filter", "hook": "output", "prio": 0, "policy": "accept", **more})


def named_set(name: str, elem: Any, kind: Any = "mark", **more: Any) -> dict[str, Any]:
    return {"set": {"family": "inet", "table": "t", "name": name, "type": kind, "elem": elem, **more}}


def is_in(name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": MARK, "right": f"@{name}"}}


# ── Documents ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("text", ["", "\n", '{"nftables": []}', document()])
def test_where_there_is_nothing_there_are_no_tables(text: str) -> None:
    assert tables(text) == ()


def test_tables_come_in_the_order_of_the_document_with_their_handles() -> None:
    found = tables(document(table("a", "ip"), table("b", "ip6"), table("a", "inet")))
    assert [(one.family, one.name, one.handle, one.tool) for one in found] == [
        ("ip", "a", 7, Tool.NFT),
        ("ip6", "b", 7, Tool.NFT),
        ("inet", "a", 7, Tool.NFT),
    ]


def test_a_part_of_a_listing_in_any_order_is_enough() -> None:
    """One chain, its rules and the sets that they name, without the table: agent.ruleset asks for no more."""
    found = only(document(rule(is_in("s"), handle=9), named_set("s", [5]), chain()))
    assert (found.family, found.name, found.handle) == ("inet", "t", 0)
    assert found.chains["c"].handle == 3 and found.chains["c"].rules[0].handle == 9


def test_rules_of_a_chain_that_is_not_listed_are_not_lost() -> None:
    assert only(document(rule(ACCEPTS))).chains["c"].rules[0].statements == (ACCEPT,)


def test_rules_are_numbered_from_one_within_their_chain() -> None:
    found = only(
        document(table(), rule(ACCEPTS), rule(ACCEPTS, place="inet t d"), rule(ACCEPTS, comment="why it is there"))
    )
    assert [(one.place, one.comment) for one in found.chains["c"].rules] == [(1, ""), (2, "why it is there")]
    assert [one.place for one in found.chains["d"].rules] == [1]


def test_what_is_no_rule_is_passed_over() -> None:
    listed = ("counter", "quota", "limit", "ct helper", "ct timeout", "ct expectation", "flowtable", "secmark", "warp")
    others = [{what: {"family": "inet", "table": "t", "name": "x", "handle": 1}} for what in listed]
    assert only(document(table(), *others)).chains == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "at line 1, column 2 of 1 characters"),
        (
            '{"nftables": [{"table": {"family": "ip", "name": "d", "handle": 1, "flags": \n',
            "has flags, as dormant or owner",
        ),
        ("[]", "nft -j list ruleset"),
        ('{"nftables": 5}', "nft -j list ruleset"),
        (document(5), "object 1"),
        (document({}), "object 1"),
        (document({"rule": None}), "object 1"),
        (document({"rule": {"family": "inet", "table": "t"}}), "object 1"),
        (document(table(), {"chain": {"family": "inet", "table": ["t"], "name": "c"}}), "object 2"),
        (document({"table": {"family": "warp", "name": "\x1b[2J"}}), "object 1"),
        (document(chain(hook="warp", type="filter", prio=0)), "chain c hangs nowhere known"),
        (document(chain(hook="input", type="filter")), "chain c hangs nowhere known"),
        ("[" * 100_000, "nested deeper"),
    ],
)
def test_what_is_no_listing_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"nft's JSON") as caught:
        tables(text)
    assert said in str(caught.value) and str(caught.value).isprintable()


# ── Tables and chains ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("flags", ["dormant", ["dormant"], ["owner", "dormant"]])
def test_a_dormant_table_says_so(flags: Any) -> None:
    assert only(document(table(flags=flags))).dormant


@pytest.mark.parametrize("flags", ["owner", ["persist"], "freed memory"])
def test_no_other_flag_makes_a_table_dormant(flags: Any) -> None:
    """libnftables 1.0.6 prints whatever stands where the flag's name was freed."""
    assert not only(document(table(flags=flags))).dormant


@pytest.mark.parametrize(
    ("said", "base"),
    [
        ({}, Base(ChainType.FILTER, Hook.OUTPUT, 0)),
        ({"policy": "drop", "prio": -150, "type": "route"}, Base(ChainType.ROUTE, Hook.OUTPUT, -150, drops=True)),
        ({"type": "nat", "hook": "prerouting"}, Base(ChainType.NAT, Hook.PREROUTING, 0)),
        ({"hook": "ingress", "dev": "eth0"}, Base(ChainType.FILTER, Hook.INGRESS, 0, devices=("eth0",))),
        ({"hook": "egress", "dev": ["a", "b"]}, Base(ChainType.FILTER, Hook.EGRESS, 0, devices=("a", "b"))),
    ],
)
def test_a_base_chain_tells_where_it_hangs(said: dict[str, Any], base: Base) -> None:
    assert only(document(hooked(**said))).chains["c"].base == base


def test_a_chain_that_is_only_jumped_to_hangs_nowhere() -> None:
    assert only(document(chain())).chains["c"].base is None


def test_rules_may_be_taken_as_any_sequence() -> None:
    rules = only(document(*(rule(ACCEPTS, handle=number) for number in range(4)))).chains["c"].rules
    assert len(rules) == 4 and [one.handle for one in rules[1:3]] == [1, 2] and rules[-1].handle == 3
    assert rules == tuple(rules) and rules != tuple(rules)[1:]


def test_names_are_kept_as_they_are_and_comments_too() -> None:
    hostile = 'x"}}]}\x1b[2J\n; drop'
    found = only(document(rule({"jump": {"target": hostile}}, place="inet t c", comment=hostile), chain(hostile)))
    assert hostile in found.chains
    assert found.chains["c"].rules[0].statements[0].chain == hostile  # type: ignore[union-attr]
    assert found.chains["c"].rules[0].comment == hostile


# ── Sets ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_set_is_read_when_a_rule_names_it_and_once() -> None:
    found = only(document(rule(is_in("s")), rule(is_in("s")), named_set("s", [5, {"range": [7, 9]}])))
    first, second = (one.statements[0] for one in found.chains["c"].rules)
    assert isinstance(first, Match) and isinstance(second, Match) and first.right is second.right
    assert first.right == Elements("s", {(5,): None}, (((Span(7, 9),), None),))
    assert found.sets["s"] is first.right and list(found.sets) == ["s"] and len(found.sets) == 1


def test_an_element_with_counter_comment_or_timeout_is_an_element() -> None:
    elem = [
        {"elem": {"val": 5, "comment": "x"}},
        {"elem": {"val": {"range": [7, 9]}, "counter": {"packets": 1, "bytes": 2}}},
    ]
    assert only(document(named_set("s", elem))).sets["s"] == Elements("s", {(5,): None}, (((Span(7, 9),), None),))


def test_of_several_components_one_range_makes_all_of_them_spans() -> None:
    elem = [{"concat": ["10.0.0.1", 80]}, {"concat": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, 443]}]
    sets = only(document(named_set("s", elem, ["ipv4_addr", "inet_service"]))).sets
    ten = 10 << 24
    assert sets["s"].exact == {(ten + 1, 80): None}
    assert sets["s"].spans == (((Span(ten, ten + (1 << 24) - 1), Span(443, 443)), None),)


def test_the_element_for_all_the_rest_comes_last() -> None:
    elem = [["*", {"drop": None}], [{"range": [1, 5]}, ACCEPTS], [9, {"goto": {"target": "x"}}]]
    found = only(
        document({"map": {"family": "inet", "table": "t", "name": "m", "type": "mark", "map": "verdict", "elem": elem}})
    )
    assert [keys[0] for keys, _ in found.sets["m"].spans] == [Span(1, 5), Span(0, 0xFFFFFFFF)]


@pytest.mark.parametrize("flags", [{"flags": ["timeout"], "timeout": 5}, {"flags": ["dynamic"]}, {"timeout": 5}])
def test_a_set_whose_elements_age_may_be_another_by_now(flags: dict[str, Any]) -> None:
    assert only(document(named_set("s", [5], **flags))).sets["s"].changing


@pytest.mark.parametrize(
    "adds",
    [
        {"set": {"op": "add", "elem": MARK, "set": "@s"}},
        {"map": {"op": "update", "elem": MARK, "data": 5, "map": "@s"}},
    ],
)
def test_a_set_that_rules_add_to_may_be_another_by_now(adds: dict[str, Any]) -> None:
    """nft 1.0.6 does not list that a set is dynamic."""
    found = only(document(named_set("s", [5]), named_set("other", [5]), rule(adds)))
    assert found.sets["s"].changing and not found.sets["other"].changing


def test_a_comment_cannot_make_a_set_look_changing() -> None:
    found = only(document(named_set("s", [5]), rule(ACCEPTS, comment='"set": "@s"')))
    assert not found.sets["s"].changing


def test_what_names_a_set_that_cannot_be_read_is_left_open() -> None:
    found = only(
        document(rule(is_in("s")), rule(is_in("t")), named_set("s", [5], "warp_type"), named_set("t", [{"x": 1}]))
    )
    assert all(isinstance(one.statements[0], Perhaps) for one in found.chains["c"].rules)
    assert list(found.sets) == [] and "s" not in found.sets


def test_a_set_that_is_nested_beyond_reason_is_not_there() -> None:
    deep: Any = 5
    for _ in range(400):
        deep = [deep]
    assert list(only(document(named_set("s", deep))).sets) in ([], ["s"])


def test_a_translation_by_a_map_that_is_not_listed_still_translates() -> None:
    to = {"map": {"key": MARK, "data": "@nowhere"}}
    (found,) = only(document(rule({"dnat": {"addr": to, "port": to}}))).chains["c"].rules[0].statements
    assert isinstance(found, Nat) and isinstance(found.address, Opaque) and isinstance(found.port, Opaque)


def test_a_word_that_is_not_known_makes_the_set_unknown_not_smaller() -> None:
    found = only(document(rule(is_in("s")), named_set("s", ["established", "warped"], "ct_state")))
    assert isinstance(found.chains["c"].rules[0].statements[0], Perhaps)


def test_an_interface_called_as_a_set_is_taken_for_the_set_only_where_there_is_one() -> None:
    asks = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "@s"}}
    (alone,) = only(document(rule(asks))).chains["c"].rules[0].statements
    assert isinstance(alone, Match) and alone.right == Constant("@s")
    (beside,) = only(document(rule(asks), named_set("s", ["eth0"], "ifname"))).chains["c"].rules[0].statements
    assert isinstance(beside, Match) and beside.right == Elements("s", {("eth0",): None})


def test_a_verdict_that_cannot_be_read_leaves_the_others_readable() -> None:
    elem = [[5, ACCEPTS], [6, {"warp": None}]]
    (found,) = only(document(rule({"vmap": {"key": MARK, "data": {"set": elem}}}))).chains["c"].rules[0].statements
    assert isinstance(found, VerdictMap) and found.among.exact is not None
    assert found.among.exact[5,] == ACCEPT and not isinstance(found.among.exact[6,], Verdict)


# ── iptables' own ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_rules_with_extensions_of_iptables_are_known_as_such() -> None:
    found = only(document(rule(OWNER, ACCEPTS), rule({"xt": {"type": "target", "name": "MARK"}}), rule(ACCEPTS)))
    assert [holds_xt(one) for one in found.chains["c"].rules] == [True, True, False]


def test_no_limit_is_taken_for_an_extension() -> None:
    assert not holds_xt(only(document(rule({"limit": {"rate": 5, "per": "second"}}))).chains["c"].rules[0])


def test_five_thousand_rules_are_not_read_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr("agent.explain.nft_json.statements", lambda said, _: read.append(said) or ())
    found = only(document(*(rule(ACCEPTS, place=f"inet t c{number % 50}") for number in range(5000))))
    assert len(found.chains) == 50 and len(found.chains["c1"].rules) == 100 and read == []
    assert found.chains["c1"].rules[0].place == 1 and len(read) == 100


def test_text_that_is_no_json_but_long_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"of 1000000 characters") as caught:
        tables("x" * 1_000_000)
    assert len(str(caught.value)) < 400


def test_the_same_document_reads_the_same() -> None:
    text = document(hooked(), rule(is_in("s")), named_set("s", [3, 1, 2]))
    assert json.dumps(repr(tables(text)[0].sets["s"])) == json.dumps(repr(tables(text)[0].sets["s"]))
