"""RedirectPlan as nft(8) scripts: each script is one transaction for one network namespace.

Two tables. `inet headgate` inspects and captures. `inet headgate-anchor` holds what living steered connections need:
two nat base chains, because connections stay translated only while a nat chain is hooked; rules that name `ct`,
because nat chains alone do not hold conntrack in its hooks, and without it nothing is translated (tried on 6.18: with
the chains alone, deleting `headgate` resets every steered connection); and the marks that lead the application's
answers back to the proxy. v4 and v6 share the tables: both families are installed, or neither.

A script that deletes waits for a grace period of the kernel (16 ms against 1.2 ms for one that only adds): the
fresh form is for a namespace without our tables.
"""

import functools
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final

from agent.plan.render.nft_match import SYN_ONLY, matched
from agent.plan.rules import (
    Capture,
    Direction,
    DropForgotten,
    Exempt,
    Inspect,
    IPFamily,
    KeepMark,
    PassGrandfathered,
    Protocol,
    RedirectPlan,
    Refuse,
    RestoreMark,
    Rule,
    SplitZone,
    Stage,
)
from agent.plan.tuples import FlowKey

TABLE: Final = "headgate"
ANCHOR_TABLE: Final = "headgate-anchor"
COMMENT_PREFIX: Final = "headgate:"

_PLANS: Final = 64
"""Rendered plans that are remembered: pods of equal annotations share one, and rendering takes 0.2 ms."""
_ALL_MARK_BITS: Final = 0xFFFFFFFF
SLIPPED: Final = f"{COMMENT_PREFIX}drift"
REPLANNED: Final = f"{COMMENT_PREFIX}rules-changed"
"""Comments of a set's element that is no older than the rules: opened while they were missing; left alone by rules that
were in force then. Kept in the kernel, so that an agent that begins knows why each lives outside the mesh."""
_SETS: Final = {IPFamily.IPV4: ("grandfathered4", "ipv4_addr"), IPFamily.IPV6: ("grandfathered6", "ipv6_addr")}
_JUDGED: Final = {
    (Protocol.TCP, Direction.INBOUND): "in-forgotten",
    (Protocol.TCP, Direction.OUTBOUND): "out-forgotten",
    (Protocol.UDP, Direction.INBOUND): "in-datagram",
    (Protocol.UDP, Direction.OUTBOUND): "out-datagram",
}
"""Chains that are jumped to: the stages FORGOTTEN and DATAGRAM."""

# Priorities: linux/netfilter_ipv4.h, enum nf_ip_hook_priorities (raw −300, conntrack −200, mangle −150, dnat −100).
# The anchor's output chain at −150 is of type route: only there does a changed mark make the packet be routed anew.
_ANCHOR_CHAINS: Final = (
    ("raw-prerouting", "type filter hook prerouting priority -300"),
    ("raw-output", "type filter hook output priority -300"),
    ("mangle-output", "type route hook output priority -150"),
    ("nat-prerouting", "type nat hook prerouting priority -100"),
    ("nat-output", "type nat hook output priority -100"),
)
_CHAINS: Final = (
    ("mangle-prerouting", "type filter hook prerouting priority -150"),
    ("mangle-output", "type filter hook output priority -150"),
    ("nat-prerouting", "type nat hook prerouting priority -100"),
    ("nat-output", "type nat hook output priority -100"),
)
_HELD_OPEN: Final = frozenset({"nat-prerouting", "nat-output"})
"""Chains of the anchor that are there for their hook's sake and hold no rule."""


def install_script(
    plan: RedirectPlan,
    grandfathered: Iterable[FlowKey],
    *,
    replace: bool,
    slipped: Iterable[FlowKey] = (),
    replanned: Iterable[FlowKey] = (),
) -> str:
    """All rules, with the connections that are older than they are, or that opened while they were missing, or that
    other rules left alone.

    `replace=False` only adds, and is for a namespace that has no table of ours: on one that has, it is refused (EEXIST)
    instead of appending each rule a second time. `replace=True` swaps whatever is there of ours for the plan.
    """
    old = _drop_tables() if replace else _claim_tables()
    sets = _sets(grandfathered, slipped, replanned)
    return f"{old}{_anchor(plan)}table inet {TABLE} {{\n{sets}{_chains(plan.rules)}}}\n"


def drain_script(plan: RedirectPlan) -> str:
    """Swap the rules for the drain form: new connections go direct, living steered ones keep their translation."""
    return f"{_drop_tables()}{_anchor(plan)}table inet {TABLE} {{\n{_chains(plan.drain)}}}\n"


def remove_script() -> str:
    """Both tables go; nothing else is touched, and their absence is no error."""
    return _drop_tables()


def grandfather_script(
    flows: Iterable[FlowKey], slipped: Iterable[FlowKey] = (), replanned: Iterable[FlowKey] = ()
) -> str:
    """Add connections to the sets; empty when there is none. Adding one that is there already is no error."""
    return "".join(
        f"add element inet {TABLE} {_SETS[family][0]} {{ {', '.join(elements)} }}\n"
        for family, elements in _elements(flows, slipped, replanned).items()
        if elements
    )


def forget_script(flows: Iterable[FlowKey]) -> str:
    """Take connections that have ended out of the sets; refused, and nothing changed, when one is not in them."""
    return "".join(
        f"delete element inet {TABLE} {_SETS[family][0]} {{ {', '.join(elements)} }}\n"
        for family, elements in _elements(flows).items()
        if elements
    )


def set_names() -> tuple[str, ...]:
    """The sets of the connections that live outside the mesh: IPv4's, IPv6's."""
    return tuple(name for name, _ in _SETS.values())


def rule_expression(rule: Rule) -> str:
    """The rule as nft takes it, without counter and comment: for people to read."""
    matches, action = _parts(rule)
    return f"{matches} {action}".lstrip()


def chain_of(rule: Rule) -> str:
    """Name of the chain that holds the rule."""
    hook = "prerouting" if rule.direction is Direction.INBOUND else "output"
    match rule:
        case SplitZone() | Exempt(stage=Stage.TRACK):
            return f"raw-{hook}"
        case KeepMark() | RestoreMark() | Inspect() | Exempt(stage=Stage.MARK):
            return f"mangle-{hook}"
        case Exempt(stage=Stage.CAPTURE) | Capture():
            return f"nat-{hook}"
        case Exempt(stage=Stage.DATAGRAM) | Refuse():
            return _JUDGED[Protocol.UDP, rule.direction]
        case _:
            return _JUDGED[Protocol.TCP, rule.direction]


# ── Tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _drop_tables() -> str:
    # Adding first makes the deletion succeed whether or not the table is there (nft(8): adding an existing table is
    # no error). Chains that the same transaction adds are hooked before the old ones are unhooked.
    return "".join(f"add table inet {table}\ndelete table inet {table}\n" for table in (TABLE, ANCHOR_TABLE))


def _claim_tables() -> str:
    return "".join(f"create table inet {table}\n" for table in (ANCHOR_TABLE, TABLE))


@functools.lru_cache(maxsize=_PLANS)
def _anchor(plan: RedirectPlan) -> str:
    chains = _by_chain(plan.anchor)
    return f"table inet {ANCHOR_TABLE} {{\n{''.join(_base_chains(_ANCHOR_CHAINS, chains, _HELD_OPEN))}}}\n"


def _sets(grandfathered: Iterable[FlowKey], slipped: Iterable[FlowKey], replanned: Iterable[FlowKey]) -> str:
    elements = _elements(grandfathered, slipped, replanned)
    return "".join(_set(family, elements[family]) for family in IPFamily)


@functools.lru_cache(maxsize=_PLANS)
def _chains(rules: tuple[Rule, ...]) -> str:
    chains = _by_chain(rules)
    # A chain that is jumped to must be declared before the rule that jumps.
    parts = [_chain(name, "", chains[name]) for name in _JUDGED.values() if name in chains]
    return "".join([*parts, *_base_chains(_CHAINS, chains)])


def _by_chain(rules: tuple[Rule, ...]) -> dict[str, list[str]]:
    chains: dict[str, list[str]] = {}
    for rule in rules:
        chains.setdefault(chain_of(rule), []).append(_line(rule))
    return chains


def _base_chains(
    hooks: tuple[tuple[str, str], ...], chains: dict[str, list[str]], held_open: frozenset[str] = frozenset()
) -> list[str]:
    return [
        _chain(name, f"\t\t{hook}; policy accept;\n", chains.get(name, ()))
        for name, hook in hooks
        if name in chains or name in held_open
    ]


def _chain(name: str, hook: str, lines: Iterable[str]) -> str:
    return f"\tchain {name} {{\n{hook}{''.join(lines)}\t}}\n"


def _set(family: IPFamily, elements: tuple[str, ...]) -> str:
    name, address = _SETS[family]
    body = f"\t\ttype {address} . inet_service . {address} . inet_service\n"
    if elements:
        body += f"\t\telements = {{ {', '.join(elements)} }}\n"
    return f"\tset {name} {{\n{body}\t}}\n"


def _elements(
    flows: Iterable[FlowKey], slipped: Iterable[FlowKey] = (), replanned: Iterable[FlowKey] = ()
) -> dict[IPFamily, tuple[str, ...]]:
    by_family: dict[IPFamily, list[str]] = {family: [] for family in IPFamily}
    comments = {**dict.fromkeys(replanned, REPLANNED), **dict.fromkeys(slipped, SLIPPED)}
    for flow in sorted({*flows, *comments}, key=lambda flow: (flow[0].version, flow)):
        local, local_port, remote, remote_port = flow
        family = IPFamily.IPV4 if isinstance(local, IPv4Address) else IPFamily.IPV6
        comment = f' comment "{comments[flow]}"' if flow in comments else ""
        by_family[family].append(f"{local} . {local_port} . {remote} . {remote_port}{comment}")
    return {family: tuple(texts) for family, texts in by_family.items()}


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _line(rule: Rule) -> str:
    matches, action = _parts(rule)
    return f'\t\t{matches} counter {action} comment "{COMMENT_PREFIX}{rule.rule_id}"\n'.replace("\t\t ", "\t\t")


def _parts(rule: Rule) -> tuple[str, str]:
    """What a packet is matched by, and what happens to it: the counter stands between."""
    match rule:
        case SplitZone(match=match, zone=zone):
            return matched(match, rule.direction), f"ct original zone set {zone}"
        case KeepMark(marked=marked, connection_mark=mark):
            return f'oifname "lo" {matched(marked, rule.direction)}', _set_mark("ct", mark, marked.mask)
        case RestoreMark(connection_mark=mark, unless=unless):
            others = f"meta mark & {unless.mask:#x} != {unless.mark:#x}"
            return f"{others} ct mark & {unless.mask:#x} == {mark:#x}", _set_mark("meta", mark, unless.mask)
        case Inspect(direction=direction, protocol=protocol):
            return _inspected(rule), f"jump {_JUDGED[protocol, direction]}"
        case Exempt(direction=direction, match=match):
            return matched(match, direction), "accept"
        case PassGrandfathered(direction=direction, family=family):
            return f"{_pod_view(direction, family)} @{_SETS[family][0]}", "accept"
        case DropForgotten(match=match):
            return "" if match is None else matched(match, rule.direction), "drop"
        case Refuse(match=match):
            return matched(match, rule.direction), "reject"
        case Capture(match=match, protocol=protocol, port=port):
            opening = (SYN_ONLY,) if protocol is Protocol.TCP else ()
            wanted = () if match is None else (matched(match, rule.direction),)
            return " ".join((*wanted, *opening)), f"redirect to :{port}"
        case _:
            raise AssertionError(f"no nft form for {rule}")


def _inspected(rule: Inspect) -> str:
    if rule.protocol is Protocol.UDP:
        return "meta l4proto udp ct state new"
    return f"meta l4proto tcp ct state {'invalid' if rule.invalid_only else '{ new, invalid }'}"


def _set_mark(kind: str, mark: int, mask: int) -> str:
    return f"{kind} mark set {kind} mark & {_ALL_MARK_BITS & ~mask:#010x} | {mark:#x}"


def _pod_view(direction: Direction, family: IPFamily) -> str:
    """Local address, local port, remote address, remote port: the order of the sets' elements."""
    protocol = "ip" if family is IPFamily.IPV4 else "ip6"
    sent = (f"{protocol} saddr", "tcp sport")
    received = (f"{protocol} daddr", "tcp dport")
    local, remote = (received, sent) if direction is Direction.INBOUND else (sent, received)
    return " . ".join((*local, *remote))
