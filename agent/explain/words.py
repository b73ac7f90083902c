"""What a rule means, whoever wrote it, in one line that an operator understands. Pure.

    TCP to port 15008 -> accept
    not to 127.0.0.1, sent by user 1337 -> back to the calling chain
    to one of 12 addresses of @istio-probes -> accept

Deterministic, of bounded length, printable; the rule's own text stands beside it and says the rest.
"""

from collections.abc import Callable, Mapping
from typing import Final

from agent.explain.nft_values import KINDS
from agent.explain.statements import (
    AnyOf,
    Bits,
    Constant,
    Decision,
    Expression,
    Field,
    Match,
    Nat,
    NatKind,
    NoEffect,
    Notrack,
    Perhaps,
    Read,
    Reject,
    Set,
    Statement,
    Tproxy,
    Unread,
    Verdict,
    VerdictMap,
    Xored,
)
from agent.explain.tables import Rule
from agent.explain.words_expressions import TEXT_LIMIT, expression_in_words, fields_of, one_of, opaque_in_words
from agent.explain.words_tests import test_in_words, together
from agent.explain.words_values import LISTED, address, count, covers_all, keys_in_words, name, noun, value_in_words
from agent.printable import printable

LINE_LIMIT: Final = 240
"""Two lines of a wide terminal: a rule of ours and of the peers has at most 150."""


def in_words(rule: Rule) -> str:
    """What it asks, and what it does: `TCP to port 15008 -> accept`."""
    tests = [test_in_words(one) for one in rule.statements if isinstance(one, Match | AnyOf | Perhaps)]
    effects = [one for one in rule.statements if not isinstance(one, Match | AnyOf | Perhaps)]
    seen = [one for one in effects if not isinstance(one, NoEffect)] or effects
    done = ", ".join(_SAYERS[type(one)](one) for one in seen) or "nothing"
    return printable(f"{together(tests) or 'every packet'} -> {done}", LINE_LIMIT)


def statement_in_words(statement: Statement) -> str:
    """One statement: of a test what it asks, of all others what they do."""
    if isinstance(statement, Match | AnyOf | Perhaps):
        return printable(together([test_in_words(statement)]), LINE_LIMIT)
    return printable(_SAYERS[type(statement)](statement), LINE_LIMIT)


# ── Verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────────
_VERDICTS: Final[Mapping[Decision, str]] = {
    Decision.ACCEPT: "accept",
    Decision.DROP: "drop",
    Decision.CONTINUE: "on with the next rule",
    Decision.RETURN: "back to the calling chain",
    Decision.QUEUE: "to a program, which decides",
}


def _verdict(said: Verdict) -> str:
    if said.decision is Decision.JUMP:
        return f"on in {name(said.chain)}"
    if said.decision is Decision.GOTO:
        return f"on in {name(said.chain)} for good"
    return _VERDICTS[said.decision]


def _verdict_map(said: VerdictMap) -> str:
    by = f"by {expression_in_words(said.key)}"
    if count(said.among) > LISTED or said.among.name:
        return f"{by}: {one_of(said.among, 'verdicts')}"
    leads = [*(said.among.exact or {}).values(), *(led for _, led in said.among.spans)]
    keys = keys_in_words(fields_of(said.key), said.among)
    if len(keys) > 1 and said.among.spans and covers_all(said.among.spans[-1][0]):
        keys[-1] = "else"
    return f"{by}: " + ", ".join(f"{key} {_led(led)}" for key, led in zip(keys, leads, strict=True))


def _led(led: "Expression | Verdict | None") -> str:
    if isinstance(led, Verdict):
        return _verdict(led)
    return expression_in_words(led) if led is not None else ""


def _reject(said: Reject) -> str:
    return f"reject ({printable(said.kind, TEXT_LIMIT)})" if said.kind else "reject"


# ── Translations ───────────────────────────────────────────────────────────────────────────────────────────────────
_WRITTEN: Final[Mapping[NatKind, str]] = {NatKind.DNAT: "destination becomes", NatKind.SNAT: "source becomes"}


def _nat(said: Nat) -> str:
    more = ", or another of the range" if said.ranged else ""
    if said.kind is NatKind.REDIRECT:
        return "redirect to " + ("this host" if said.port is None else _port(said.port)) + more
    if said.kind is NatKind.MASQUERADE:
        port = "" if said.port is None else f", {_port(said.port)}"
        return f"source becomes the address of the interface it leaves by{port}{more}"
    return f"{_WRITTEN[said.kind]} {_end(said.address, said.port)}{more}"


def _tproxy(said: Tproxy) -> str:
    where = _end(said.address, said.port) if said.address or said.port else "its own destination"
    return f"to the transparent socket at {where}"


def _end(where: Expression | None, port: Expression | None) -> str:
    """`10.0.0.5:80`, `[fd00::5]:80`, `port 80`."""
    if where is None:
        return _port(port) if port is not None else "as it was"
    if not isinstance(where, Constant):
        return expression_in_words(where, "addresses")
    text = address(where.value)
    if port is None:
        return text
    if not isinstance(port, Constant):
        return f"{text}, {_port(port)}"
    return f"[{text}]:{port.value}" if ":" in text else f"{text}:{port.value}"


def _port(port: Expression) -> str:
    return f"port {port.value}" if isinstance(port, Constant) else expression_in_words(port, "ports")


# ── Changes ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _set(said: Set) -> str:
    what, value = noun(said.field), said.value
    ones = KINDS[said.field].ones if said.field in KINDS else 0xFFFFFFFF
    if isinstance(value, Constant):
        return f"{what} becomes {value_in_words(said.field, value.value)}"
    if isinstance(value, Bits) and value.of == Read(said.field):
        return f"{what} becomes {_bits_become(said.field, value, ones)}"
    if isinstance(value, Xored) and (taken := _taken(said.field, value, ones)):
        return f"bits {taken[0]:#x} of the {what} become {taken[1]}"
    return f"{what} becomes {expression_in_words(value)}"


def _bits_become(field: Field, value: Bits, ones: int) -> str:
    """Which bits are written, with what: `0x111/0xfff`."""
    kept = value.mask & ~value.ored & ones
    written = (value.xor & ~kept) | value.ored
    turned = value.xor & kept
    text = value_in_words(field, written) if kept == 0 else f"{written:#x}/{ones & ~kept:#x}"
    if turned:
        text = f"itself with the bits {turned:#x} inverted" + (f", and {text}" if ones & ~kept else "")
    return text


def _taken(field: Field, value: Xored, ones: int) -> tuple[int, str] | None:
    """`its bits outside the mask, and inside it another's`: what iptables' CONNMARK does with masks."""
    for mine, other in ((value.left, value.right), (value.right, value.left)):
        if isinstance(mine, Bits) and mine.of == Read(field) and not mine.xor and not mine.ored:
            bits = ones & ~mine.mask
            whole = other.of if isinstance(other, Bits) and other == Bits(other.of, bits) else other
            return bits, f"those of {expression_in_words(whole)}"
    return None


def _no_effect(said: NoEffect) -> str:
    return _UNSEEN.get(said.text.removeprefix("-j ").partition(" ")[0]) or printable(said.text, TEXT_LIMIT)


_UNSEEN: Final = {"counter": "counted", "log": "logged", "LOG": "logged", "comment": "a comment"}


# ── Anything else ──────────────────────────────────────────────────────────────────────────────────────────────────
def _unread(said: Unread) -> str:
    return f"perhaps something else ({opaque_in_words(said.what)})"


_SAYERS: Final[Mapping[type, Callable[..., str]]] = {
    Verdict: _verdict,
    VerdictMap: _verdict_map,
    Reject: _reject,
    Nat: _nat,
    Tproxy: _tproxy,
    Set: _set,
    Notrack: lambda _: "conntrack does not see it",
    NoEffect: _no_effect,
    Unread: _unread,
}
