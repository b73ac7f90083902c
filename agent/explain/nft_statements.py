"""Statements of nft's JSON (libnftables-json(5), STATEMENTS) as the interpreter walks them. Pure.

Nothing raises: what cannot be read is `Perhaps` where it only tests, `Unread` where it may decide, `NoEffect` where it
cannot change a packet's way whatever it says.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Final

from agent.explain import nft_symbols as symbols
from agent.explain.nft_expressions import expression, field_of, key, kinds_of
from agent.explain.nft_sets import Sets, verdicts
from agent.explain.nft_tests import BEFORE, CACHED, IPV4_ONLY, IPV6_ONLY, TCP_ONLY, TESTS, Reader, implied_by, left_open
from agent.explain.nft_text import Json, text_of
from agent.explain.nft_translations import TRANSLATIONS
from agent.explain.nft_values import KINDS, MALFORMED, NUMBER, Kind, Unreadable, opaque
from agent.explain.statements import (
    Decision,
    Expression,
    NoEffect,
    Notrack,
    Opaque,
    Perhaps,
    Reject,
    Set,
    Statement,
    Unread,
    Verdict,
    VerdictMap,
)

XT: Final = "xt "
"""How the text of an `Opaque` begins that is iptables' own extension: iptables-nft-save tells what it says."""


# ── Verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _into(decision: Decision) -> Reader:
    made = functools.lru_cache(maxsize=CACHED)(lambda chain: Verdict(decision, chain))

    def read(said: Json, _: Sets) -> Statement:
        return made(said["target"])

    return read


def _vmap(said: Json, sets: Sets) -> Statement:
    at, data = key(said["key"], sets), said["data"]
    if isinstance(data, str):
        return VerdictMap(at, sets.named(data[1:]))
    return VerdictMap(at, verdicts(data["set"], kinds_of(at, said["key"])))


def _reject(said: Json, _: Sets) -> Statement:
    if not said:
        return Reject()
    kind, code = text_of(said["type"]), said.get("expr")
    if type(code) is int:
        code = _REJECTS.get((kind, code), str(code))
    return Reject(kind if code is None else f"{kind} {text_of(code)}")


_REJECTS: Final = {
    (kind, number): word
    for kind, words in (
        ("icmp", symbols.ICMP_CODES),
        ("icmpv6", symbols.ICMP6_CODES),
        ("icmpx", symbols.ICMPX_CODES),
    )
    for word, number in words.items()
}


# ── Changes ────────────────────────────────────────────────────────────────────────────────────────────────────────
_UNSEEN: Final = {
    "meta": ("priority", "nftrace", "secmark"),
    "ct": ("event", "label", "helper", "secmark", "timeout"),
}
"""What no rule that is read here asks for, and no route depends on."""


def _mangle(said: Json, sets: Sets) -> Statement:
    ((source, what),) = said["key"].items()
    if source not in ("meta", "ct", "payload"):  # options of TCP, extension headers
        return NoEffect(text_of({"mangle": said}))
    if what.get("dir") == "reply" or what.get("key") in _UNSEEN.get(source, ()):
        return NoEffect(text_of({"mangle": said}))
    try:
        field = field_of(said["key"], sets.family)
    except Unreadable:
        if "field" in what:  # a checksum, an id: the fields that routes and rules go by are known
            return NoEffect(text_of({"mangle": said}))
        raise
    return Set(field, _new_value(said["value"], sets, KINDS.get(field, NUMBER)))


def _new_value(raw: Json, sets: Sets, kind: Kind) -> Expression:
    try:
        return expression(raw, sets, kind)
    except Unreadable as error:
        return opaque(raw, error.why)


def _update(said: Json, _: Sets) -> Statement:
    """A set's element is added, renewed or deleted; one with a limit in it goes on or not by the limit."""
    if all("counter" in one for one in said.get("stmt", ())):
        return NoEffect(text_of({"set": said}))
    return Perhaps(opaque({"set": said}, BEFORE))


# ── What others say, or nobody ─────────────────────────────────────────────────────────────────────────────────────
def _xt(said: Json, _: Sets) -> Statement:
    kind, name = (text_of(said[part]) if said and part in said else "?" for part in ("type", "name"))
    if (kind, name) == ("match", "comment"):
        return NoEffect("comment")
    what = Opaque(f"{XT}{kind} {name}", "iptables' own, which nft does not print")
    return Perhaps(what) if kind == "match" else Unread(what)


def _unread(word: str, why: str) -> Reader:
    def read(said: Json, _: Sets) -> Statement:
        return Unread(opaque({word: said}, why))

    return read


_READERS: Final[Mapping[str, Callable[[Json, Sets], Statement]]] = {
    **TESTS,
    **TRANSLATIONS,
    "jump": _into(Decision.JUMP),
    "goto": _into(Decision.GOTO),
    "vmap": _vmap,
    "reject": _reject,
    "mangle": _mangle,
    "set": _update,
    "map": _update,
    "xt": _xt,
    "fwd": _unread("fwd", "it leaves here by another interface"),
    "synproxy": _unread("synproxy", "the kernel answers in the server's place"),
}
_ALWAYS: Final[Mapping[str, Statement]] = {
    **{
        decision.value: Verdict(decision)
        for decision in (Decision.ACCEPT, Decision.DROP, Decision.CONTINUE, Decision.RETURN, Decision.QUEUE)
    },
    "notrack": Notrack(),
    **{word: NoEffect(word) for word in ("counter", "log", "last", "dup", "flow", "reset", "secmark")},
    **{word: NoEffect(word) for word in ("ct helper", "ct timeout", "ct expectation")},
}
"""Those that mean the same whatever stands behind the word."""


def statements(said: Json, sets: Sets) -> tuple[Statement, ...]:
    """Of a rule's `expr`; `sets`: its table's. One that tests what cannot be read is preceded by what it implies."""
    found: list[Statement] = []
    for raw in said if type(said) is list else (said,):
        if type(raw) is not dict or len(raw) != 1:
            found.append(_printed(raw))
            continue
        ((word, what),) = raw.items()
        if (always := _ALWAYS.get(word)) is not None:
            found.append(always)
        elif (read := _READERS.get(word)) is None:
            found.append(Unread(opaque(raw)))
        else:
            try:
                if word in _IMPLYING and what:
                    found.extend(_implied(word, what, sets.family))
                found.append(read(what, sets))
            except Unreadable as error:
                found.extend(_left_open(word, raw, error.why))
            except MALFORMED:
                found.extend(_left_open(word, raw, "it is not as nft writes it"))
    return tuple(found)


_IMPLYING: Final = frozenset({"reject", "dnat", "snat", "tproxy", "mangle"})
_OF_FAMILY: Final = {"ip": IPV4_ONLY, "ip6": IPV6_ONLY}
_OF_REJECT: Final = {"tcp reset": TCP_ONLY, "icmp": IPV4_ONLY, "icmpv6": IPV6_ONLY}


def _implied(word: str, said: Json, family: str) -> tuple[Statement, ...]:
    """What such a statement goes on for: nft puts the test before a reject and lists it no more (src/evaluate.c:
    stmt_evaluate_reject; netlink_delinearize.c: stmt_reject_postprocess), and so before a header's field is written;
    for a packet of another family a translation does nothing (nft_nat.c: nft_nat_inet_eval), and tproxy breaks off
    (nft_tproxy.c)."""
    if word == "mangle":
        of = implied_by(said["key"]) if "payload" in said.get("key", ()) else ()
        return of if family == "inet" or of not in _OF_FAMILY.values() else ()
    if word == "reject":
        of = _OF_REJECT.get(said.get("type"), ())
        return of if family == "inet" or of is TCP_ONLY else ()
    return _OF_FAMILY.get(said.get("family"), ()) if family == "inet" else ()


def _left_open(word: str, raw: Json, why: str) -> tuple[Statement, ...]:
    return left_open(raw, why) if word in TESTS else (Unread(opaque(raw, why)),)


_NAMED_ONES: Final = ("add @", "update @", "delete @", "reset tcp option ")
_DECIDERS: Final = (" limit ", " quota ", " ct count ")


def _printed(raw: Json) -> Statement:
    """As text, for which libnftables 1.0.6 has no JSON: changes of maps (`update @m { … }`), removed options."""
    if isinstance(raw, str) and raw.startswith(_NAMED_ONES):
        return Perhaps(opaque(raw, BEFORE)) if any(word in raw for word in _DECIDERS) else NoEffect(text_of(raw))
    return Unread(opaque(raw))
