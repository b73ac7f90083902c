"""What this version cannot read of nft's JSON, and what no nft writes: left open by name, never guessed."""

import pytest

from agent.explain.statements import (
    ACCEPT,
    DROP,
    Bits,
    Constant,
    Field,
    Match,
    NoEffect,
    Op,
    Opaque,
    Perhaps,
    Read,
    Set,
    Statement,
    Unread,
)
from tests.unit.agent.explain.nft_listing import document, listing, only, read, read_rule, rule
from tests.unit.agent.explain.nft_said import (
    TCP,
    equal,
    mark_becomes,
)

UNKNOWN: dict[str, tuple[Statement, ...]] = {
    "limit rate over 5/second burst 10 packets drop": (
        Perhaps(Opaque("limit rate over 5/second", "how many packets came before decides")),
        DROP,
    ),
    "quota name q": (Perhaps(Opaque("quota name q", "how much has passed before decides")),),
    "ct count over 5 drop": (Perhaps(Opaque("ct count over 5", "how many connections there are decides")), DROP),
    "update @dyn { ip saddr limit rate 5/second } accept": (
        Perhaps(Opaque("update @dyn { ip saddr limit rate 5/second }", "how many packets came before decides")),
        ACCEPT,
    ),
    # Of another protocol's packet it is certain all the same.
    "tcp window 5 accept": (
        TCP,
        Perhaps(Opaque("tcp window 5", "nothing is known of that part of the packet")),
        ACCEPT,
    ),
    "ip6 flowlabel 5 accept": (
        equal(Field.NFPROTO, 10),
        Perhaps(Opaque("ip6 flowlabel 5", "nothing is known of that part of the packet")),
        ACCEPT,
    ),
    'iifname "eth\\*" accept': (
        Perhaps(Opaque("meta iifname eth\\*", "eth\\* is no name of an interface that can be told from a wildcard")),
        ACCEPT,
    ),
    "meta mark set (meta mark & 0xff) << 8": (
        mark_becomes(Opaque("meta mark & 255 << 8", "bits are moved, and that is more than this version follows")),
    ),
    'fwd to "lo"': (Unread(Opaque("fwd to lo", "it leaves here by another interface")),),
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_cannot_be_told_is_said_to_be_so(text: str) -> None:
    assert read_rule(listing()[1][text]).statements == UNKNOWN[text]


# ── What no kernel lists, or another nft ───────────────────────────────────────────────────────────────────────────
MARK = {"meta": {"key": "mark"}}


def test_xor_after_or_is_followed_bit_by_bit() -> None:
    (statement,) = read({"mangle": {"key": MARK, "value": {"^": [{"|": [{"&": [MARK, 0xF0]}, 0x0F]}, 0x3C]}}})
    assert isinstance(statement, Set) and isinstance(statement.value, Bits)
    bits = statement.value
    for mark in (0, 0xFF, 0xA5, 0x12345678):
        assert ((mark & bits.mask) ^ bits.xor) | bits.ored == ((mark & 0xF0) | 0x0F) ^ 0x3C


def test_and_after_or_is_followed_bit_by_bit() -> None:
    (statement,) = read({"mangle": {"key": MARK, "value": {"&": [{"|": [{"^": [MARK, 0xFF]}, 0x0F]}, 0x3C]}}})
    assert isinstance(statement, Set) and isinstance(statement.value, Bits)
    bits = statement.value
    for mark in (0, 0xFF, 0xA5, 0x12345678):
        assert ((mark & bits.mask) ^ bits.xor) | bits.ored == ((mark ^ 0xFF) | 0x0F) & 0x3C


def test_two_packet_fields_that_are_combined_are_not_guessed() -> None:
    (statement,) = read({"mangle": {"key": MARK, "value": {"|": [MARK, {"ct": {"key": "mark"}}]}}})
    assert isinstance(statement, Set) and isinstance(statement.value, Opaque)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        ({"xt": {"type": "match", "name": "owner"}}, "xt match owner"),
        ({"xt": {"type": "target", "name": "REDIRECT"}}, "xt target REDIRECT"),
        ({"xt": None}, "xt ? ?"),
    ],
)
def test_what_only_iptables_can_say_stays_open_under_its_name(expr: object, text: str) -> None:
    (statement,) = read(expr)
    assert isinstance(statement, Perhaps if "match" in text else Unread) and statement.what.text == text


def test_iptables_comment_asks_nothing() -> None:
    assert read({"xt": {"type": "match", "name": "comment"}}) == (NoEffect("comment"),)


@pytest.mark.parametrize("right", ["somebody", "sshd\x1b[2J", "12 "])
def test_a_user_by_name_is_nobody_here(right: str) -> None:
    (statement,) = read({"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": right}})
    assert isinstance(statement, Perhaps)
    assert statement.what.text.isprintable() and "word of its maker's machine" in statement.what.why


def test_an_index_of_no_interface_is_not_taken_for_a_name() -> None:
    (statement,) = read({"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": 7}})
    assert isinstance(statement, Perhaps)


def test_true_is_not_taken_for_the_number_one() -> None:
    """1 == True in Python: what was read before must not be found for the other."""
    fib = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
    for _ in range(2):
        assert read({"match": {"op": "==", "left": fib, "right": True}})[0] == Match(
            Read(Field.SOURCE_FIB_OIF), Op.UNEQUAL, Constant(0)
        )
        assert read({"match": {"op": "==", "left": fib, "right": 1}})[0] == equal(Field.SOURCE_FIB_OIF, 1)
        assert read({"match": {"op": "!=", "left": fib, "right": True}})[0] == equal(Field.SOURCE_FIB_OIF, 0)


@pytest.mark.parametrize(
    "expr",
    [
        {"warp": {"to": 5}},
        {"match": {}},
        {"match": None},
        {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"range": [1]}}},
        {"match": {"op": "~", "left": MARK, "right": 5}},
        {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.300"}},
        {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "１.2.3.4"}},
        {"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "saddr"}}, "right": "fe80::1%eth0x"}},
        {"match": {"op": "==", "left": {"concat": [MARK]}, "right": {"set": [{"concat": [1, 2]}]}}},
        {"match": {"op": "<", "left": MARK, "right": {"set": [1, 2]}}},
        {"match": {"op": "==", "left": MARK, "right": "@nowhere"}},
        {"vmap": {"key": MARK, "data": "@nowhere"}},
        {"vmap": {"key": MARK, "data": {"set": [5]}}},
        {"jump": "x"},
        {"jump": {}},
        {"jump": {"target": ["x"]}},
        {"redirect": "x"},
        {"dnat": []},
        {"mangle": {"key": {}, "value": 5}},
        {"mangle": {"key": {"payload": {"base": "nh", "offset": 0, "len": 8}}, "value": 5}},
        {"accept": None, "drop": None},
        ["accept"],
        "a statement in words",
        None,
        5,
    ],
)  # fmt: skip
def test_what_nft_never_says_is_left_open_and_shown(expr: object) -> None:
    statements = read(expr, {"accept": None})
    assert isinstance(statements[-2], Perhaps | Unread) and statements[-1] == ACCEPT
    assert statements[-2].what.text.isprintable() and len(statements[-2].what.text) <= 200


def test_what_is_nested_beyond_reason_is_left_open() -> None:
    left = '{"&": [' * 300 + '{"meta": {"key": "mark"}}' + ", 1]}" * 300
    text = document(rule()).replace(
        '"expr": []', f'"expr": [{{"match": {{"op": "==", "left": {left}, "right": [1]}}}}]'
    )
    (statement,) = only(text).chains["c"].rules[0].statements
    assert isinstance(statement, Match | Perhaps)
