"""Tests that a rule of nftables holds and libnftables does not list, read from the kernel's own message.

nft(8) 1.0.6 takes `meta nfproto` in front of `reject`, `ct l3proto` and `ct protocol` for what it put there itself for
the test that follows, and leaves them out (netlink_delinearize.c: payload_dependency_kill), in text and in JSON: `ct
protocol udp th dport 82 drop` is listed as `th dport 82 drop`. Numbers are of linux/netfilter/nf_tables.h.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from agent.explain.statements import Constant, Field, Match, Op, Opaque, Read, Statement, Unread
from agent.explain.tables import Rule
from agent.kernel.netlink import Netlink, attribute, attribute_list, attributes, payloads
from agent.kernel.nft_messages import GETRULE, NETLINK_NETFILTER, NFGENMSG, message

_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_EXPR_NAME, _EXPR_DATA = 1, 2
_TO_REGISTER, _KEY = 1, 2  # NFTA_META_*, NFTA_CT_*
_CMP_REGISTER, _CMP_OP, _CMP_DATA, _DATA_VALUE = 1, 2, 3, 1
_OPERATORS: Final = {0: Op.EQUAL, 1: Op.UNEQUAL}
_FIELDS: Final = {
    (b"meta\0", 15): Field.NFPROTO,
    (b"ct\0", 7): Field.CT_L3PROTO,
    (b"ct\0", 10): Field.CT_PROTOCOL,
}
_CT: Final = attribute(_EXPR_NAME, b"ct\0")
_REJECT: Final = attribute(_EXPR_NAME, b"reject\0")
_FROM_REGISTER: Final = {b"meta\0": 3, b"ct\0": 4, b"payload\0": 5}
"""What has it writes to the packet; without, it is read."""
_ONLY_TEST: Final = frozenset(
    {
        b"meta\0", b"ct\0", b"payload\0", b"cmp\0", b"bitwise\0", b"byteorder\0", b"lookup\0", b"range\0", b"exthdr\0",
        b"fib\0", b"rt\0", b"socket\0", b"counter\0", b"limit\0", b"quota\0", b"connlimit\0", b"log\0", b"last\0",
    }
)  # fmt: skip

Expressions = list[tuple[bytes, dict[int, bytes]]]


def with_them(rules: Sequence[Rule], family: int, table: str, chain: str) -> Sequence[Rule]:
    """`rules` of that chain as listed, with the tests that are missing, in the calling thread's namespace. Raises
    OSError."""
    missing = _missing(family, table, chain)
    if not missing:
        return rules
    return tuple(_with(rule, missing.get(rule.handle, ())) for rule in rules)


def _with(rule: Rule, missing: Sequence[Statement]) -> Rule:
    """In front: nothing of the packet has been changed before them, or nobody knows what the rule does."""
    added = tuple(one for one in missing if one not in rule.statements)
    return replace(rule, statements=(*added, *rule.statements)) if added else rule


def _missing(family: int, table: str, chain: str) -> Mapping[int, tuple[Statement, ...]]:
    """By handle; of rules that may hold such. Most chains have none, and are looked through as bytes."""
    asked = attribute(_RULE_TABLE, _name(table)) + attribute(_RULE_CHAIN, _name(chain))
    with Netlink(NETLINK_NETFILTER) as netlink:
        dumped = netlink.dump_whole(message(GETRULE, 0, asked, family))
    found: dict[int, tuple[Statement, ...]] = {}
    if _CT in dumped or _REJECT in dumped:
        for data in payloads(dumped):
            if _CT in data or _REJECT in data:
                rule = attributes(data[NFGENMSG.size :])
                if tests := tuple(_tests(_expressions(rule.get(_RULE_EXPRESSIONS, b"")))):
                    found[int.from_bytes(rule.get(_RULE_HANDLE, b""), "big")] = tests
    return found


def _expressions(data: bytes) -> Expressions:
    held = (attributes(raw) for _, raw in attribute_list(data))
    return [(one.get(_EXPR_NAME, b""), attributes(one.get(_EXPR_DATA, b""))) for one in held]


def _tests(expressions: Expressions) -> Iterator[Statement]:
    """Those of these fields, whether listed or not."""
    rejects = any(name == b"reject\0" for name, _ in expressions)
    changed = False
    for (name, data), (follows, compared) in pairwise(expressions):
        changed |= name not in _ONLY_TEST or _FROM_REGISTER.get(name) in data
        field = _FIELDS.get((name, int.from_bytes(data.get(_KEY, b""), "big")))
        if field is None or follows != b"cmp\0" or (field is Field.NFPROTO and not rejects):
            continue
        operator = _OPERATORS.get(int.from_bytes(compared.get(_CMP_OP, b""), "big"))
        if operator is None or compared.get(_CMP_REGISTER) != data.get(_TO_REGISTER):
            continue
        value = int.from_bytes(attributes(compared.get(_CMP_DATA, b"")).get(_DATA_VALUE, b""), "big")
        test = Match(Read(field), operator, Constant(value))
        yield Unread(Opaque(f"{field.value} {value}", "nft does not list where it stands")) if changed else test


def _name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape") + b"\0"
