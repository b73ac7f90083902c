"""TCP that conntrack does not know: the stage FORGOTTEN.

A steered connection is translated by conntrack. Once conntrack has forgotten it, its bytes would pass the proxy by; so
what is unknown, and no opening, is dropped unless it can be told that the connection was never steered. Node mode: both
ways. Init mode: what the pod sends, because an arriving packet has no owner, and the proxy's could not be told.
"""

from collections.abc import Iterator
from typing import Final

from agent.plan.capture import direct_of_guests, tunnel
from agent.plan.matching import (
    TCP,
    WAY,
    all_of,
    at_ports,
    excluded_interfaces,
    excluded_networks,
    excluded_owner_ports,
    excluded_ports,
    excluded_senders,
    exempt,
    from_probes,
    in_networks,
    included_inbound,
    included_outbound,
    marked,
    never_steered,
    other_families,
    proxys,
    to_probes,
    virtual_interfaces,
)
from agent.plan.ranges import Ranges
from agent.plan.rules import (
    AtPorts,
    Direction,
    DropForgotten,
    Exempt,
    Inspect,
    Opening,
    PassGrandfathered,
    Rule,
    Side,
    Stage,
    ToMarkedSocket,
)
from agent.plan.settings import PlanSettings
from agent.plan.steering import Steering

DROP_RULE_IDS: Final = {
    "in-forgotten": (
        "in-forgotten",
        "in-forgotten-virtual",
        "in-forgotten-virtual-ports",
        "in-forgotten-virtual-networks4",
        "in-forgotten-virtual-networks6",
    ),
    "out-forgotten": (
        "out-forgotten",
        "out-forgotten-ports",
        "out-forgotten-networks4",
        "out-forgotten-networks6",
        "out-forgotten-proxy",
    ),
}
"""By chain: the rules, of whatever plan, that drop and count what conntrack has forgotten."""

_OUT: Final = Direction.OUTBOUND
_IN: Final = Direction.INBOUND


def inbound(wanted: Steering, settings: PlanSettings) -> tuple[Rule, ...]:
    drops = tuple(_drops_inbound(wanted))
    if settings.owners is not None and wanted.drop_invalid:
        return (
            _inspect(_IN, invalid_only=True),
            *_spared_inbound(wanted, settings),
            *_grandfathered(_IN, wanted),
            _invalid(),
        )
    if settings.owners is not None or not drops:
        return ()
    own = ToMarkedSocket(settings.proxy_mark, settings.mark_mask)
    return (
        _inspect(_IN),
        _opening(_IN),
        *_spared_inbound(wanted, settings),
        # An arriving answer to the proxy's own upstream carries no mark: only its socket tells whose it is.
        exempt(_IN, Stage.FORGOTTEN, "proxy", own, "the proxy's own connections"),
        *_grandfathered(_IN, wanted),
        *drops,
    )


def outbound(wanted: Steering, settings: PlanSettings) -> tuple[Rule, ...]:
    return (
        _inspect(_OUT),
        _opening(_OUT),
        *excluded_interfaces(_OUT, Stage.FORGOTTEN, wanted),
        *other_families(_OUT, Stage.FORGOTTEN, wanted),
        *never_steered(_OUT, Stage.FORGOTTEN, settings),
        *to_probes(wanted, settings),
        *_by_proxy(wanted, settings),
        *_own(settings),
        *excluded_senders(Stage.FORGOTTEN, wanted),
        *excluded_owner_ports(Stage.FORGOTTEN, wanted, TCP),
        *excluded_ports(_OUT, Stage.FORGOTTEN, wanted, TCP),
        *excluded_networks(_OUT, Stage.FORGOTTEN, wanted),
        *_answers(_OUT, wanted),
        *_grandfathered(_OUT, wanted),
        *_drops_outbound(wanted),
    )


def drain(wanted: Steering, settings: PlanSettings) -> tuple[Rule, ...]:
    """While the pod leaves nothing is captured any more; only the proxy's ends of steered connections are watched."""
    return (_inspect(_OUT), _opening(_OUT), *_by_proxy(wanted, settings))


# ── Pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _inspect(direction: Direction, *, invalid_only: bool = False) -> Inspect:
    meaning = "TCP that conntrack does not know is looked at more closely"
    if invalid_only:
        meaning = "TCP that conntrack calls invalid is looked at more closely"
    return Inspect(f"{WAY[direction]}-inspect", meaning, direction, invalid_only)


def _opening(direction: Direction) -> Exempt:
    return exempt(direction, Stage.FORGOTTEN, "opening", Opening(), "a new connection: it is captured further on")


def _spared_inbound(wanted: Steering, settings: PlanSettings) -> Iterator[Exempt]:
    yield from excluded_interfaces(_IN, Stage.FORGOTTEN, wanted)
    yield from other_families(_IN, Stage.FORGOTTEN, wanted)
    yield from never_steered(_IN, Stage.FORGOTTEN, settings)
    yield from from_probes(Stage.FORGOTTEN, wanted, settings)
    if wanted.virtual_interfaces:
        yield from direct_of_guests(Stage.FORGOTTEN, wanted)
    yield tunnel(Stage.FORGOTTEN, settings)
    yield from excluded_ports(_IN, Stage.FORGOTTEN, wanted, TCP)
    yield from excluded_networks(_IN, Stage.FORGOTTEN, wanted)
    yield from _answers(_IN, wanted)


def _answers(direction: Direction, wanted: Steering) -> Iterator[Exempt]:
    """What the other direction of an excluded connection looks like. Who sent it cannot be seen in an answer: those of
    excluded users wait until the user sends again, which makes the connection known."""
    ports, networks, side = wanted.exclude_inbound_ports, wanted.exclude_inbound_networks, Side.DESTINATION
    if direction is _IN:
        ports, networks, side = wanted.exclude_outbound_ports, wanted.exclude_outbound_networks, Side.SOURCE
    meaning = "the other direction of what is excluded"
    for name, match in (
        *at_ports("answers-ports", ports, Side.SOURCE),
        *in_networks("answers-networks", networks, side),
    ):
        yield exempt(direction, Stage.FORGOTTEN, name, match, meaning)


def _own(settings: PlanSettings) -> Iterator[Exempt]:
    for name, match in proxys(settings):
        yield exempt(_OUT, Stage.FORGOTTEN, name, match, "the proxy's own connections")


def _grandfathered(direction: Direction, wanted: Steering) -> Iterator[PassGrandfathered]:
    meaning = "connections older than these rules go on as they are"
    for family in wanted.families:
        yield PassGrandfathered(f"{WAY[direction]}-grandfathered{family.value[-1]}", meaning, direction, family)


def _by_proxy(wanted: Steering, settings: PlanSettings) -> Iterator[DropForgotten]:
    ports = Ranges.of(settings.outbound_port, settings.inbound_port)
    if wanted.dns is not None and wanted.dns.tcp:
        ports |= Ranges.of(settings.dns_port)
    sent_from = AtPorts(ports, Side.SOURCE)
    meaning = "what the proxy answers on a steered connection that conntrack forgot would leave untranslated: dropped"
    # A sidecar's port says whose it is, and a closed socket's last segments have no owner any more (marks.py).
    match = sent_from if settings.owners is not None else all_of(marked(settings), sent_from)
    yield DropForgotten("out-forgotten-proxy", meaning, _OUT, match)


def _invalid() -> DropForgotten:
    return DropForgotten("in-forgotten", "TCP that conntrack calls invalid, untranslated: dropped, as asked for", _IN)


def _drops_inbound(wanted: Steering) -> Iterator[DropForgotten]:
    included = included_inbound(wanted)
    meaning = "TCP unknown to conntrack: bytes of a steered connection would reach the application unseen: dropped"
    if wanted.virtual_interfaces and all(match is not None for _, match in included):
        guests = virtual_interfaces(wanted)
        for name, match in included_outbound(wanted):
            yield DropForgotten(f"in-forgotten-virtual{name}", meaning, _IN, all_of(guests, match))
    for _, match in included:
        yield DropForgotten("in-forgotten", meaning, _IN, match)


def _drops_outbound(wanted: Steering) -> Iterator[DropForgotten]:
    meaning = "TCP unknown to conntrack: bytes of a steered connection would leave in clear past the proxy: dropped"
    for name, match in included_outbound(wanted):
        yield DropForgotten(f"out-forgotten{name}", meaning, _OUT, match)
