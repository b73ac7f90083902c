"""Why a rule is there, by its id alone: for rules that are read where nobody knows which plan made them. Pure."""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from agent.plan import PlanSettings, ProbeSettings, Steering, plan_of
from agent.plan.node_rules import MEANINGS
from agent.plan.ranges import Ranges
from agent.plan.rules import IPFamily, Protocol
from agent.plan.steering import DnsCapture, Included, Network, OwnerPorts, Owners, UdpPolicy, VirtualInterface

ENTRY: Final = "entry"
"""agent.plan.render.iptables: jumps, and what was made for their sake."""
_ENTRY_MEANING: Final = "the way into a chain of ours"

_PORTS: Final = Ranges.of(1)
_IDS: Final = Ranges.of(1)
_BOTH: Final[tuple[Network, ...]] = (IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/32"))
_OWNERS: Final = Owners(Ranges.of(2), Ranges.of(2))
_SETTINGS: Final = (
    PlanSettings(probes=ProbeSettings()),
    PlanSettings(owners=_OWNERS),
    PlanSettings(owners=_OWNERS, passthrough=False),
)
_ALL: Final = Steering(
    exclude_inbound_ports=_PORTS,
    exclude_inbound_networks=_BOTH,
    exclude_outbound_ports=_PORTS,
    exclude_outbound_networks=_BOTH,
    exclude_uids=_IDS,
    exclude_gids=_IDS,
    exclude_owner_ports=(OwnerPorts(frozenset(Protocol), _PORTS, _IDS),),
    exclude_interfaces=("x+",),
    virtual_interfaces=(VirtualInterface("y+", _BOTH),),
    dns=DnsCapture(),
    udp=UdpPolicy.DENY,
    drop_invalid=True,
)
_NAMED_SERVERS: Final = DnsCapture((IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")), over_loopback=True)
_INCLUDED: Final = replace(
    _ALL,
    include_inbound_ports=Ranges.of(2),
    include_outbound=Included(Ranges.of(2), (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"))),
    exclude_gids=Ranges(),
    include_gids=Ranges.of(3),
    dns=_NAMED_SERVERS,
    udp=UdpPolicy.DENY_443,
)
_ONE_FAMILY: Final = tuple(replace(_ALL, families=(family,)) for family in IPFamily)
_WANTED: Final = (_INCLUDED, *_ONE_FAMILY, _ALL, Steering())
"""Together they have every rule that a plan can have; the defaults last, whose words are the plainest."""
_NUMBER: Final = re.compile(r"(?<=user-ports)[0-9]+|(?<=virtual)[0-9]+")
"""Of rules that there are several of, which mean the same; a 4 or 6 at a word's end is a family's."""


def meanings_for(rule_ids: Iterable[str]) -> Callable[[str], str | None]:
    """Rule id -> meaning, None for a rule that this version has not. The same id may be told in other words in another
    mode: `rule_ids` are those that are there together, and show which it is."""
    there = {_plain(rule_id) for rule_id in rule_ids}
    by_fit = sorted(_known(), key=lambda known: len(there - known.keys()))

    def meaning(rule_id: str) -> str | None:
        if rule_id.startswith(ENTRY):
            return _ENTRY_MEANING
        if rule_id in MEANINGS:
            return MEANINGS[rule_id]
        plain = _plain(rule_id)
        return next((known[plain] for known in by_fit if plain in known), None)

    return meaning


def _plain(rule_id: str) -> str:
    return _NUMBER.sub("1", rule_id)


@functools.cache
def _known() -> tuple[dict[str, str], ...]:
    """By settings."""
    return tuple(
        {
            _plain(rule.rule_id): rule.meaning
            for wanted in _WANTED
            for plan in (plan_of(wanted, settings),)
            for rule in (*plan.all_rules, *plan.drain)
        }
        for settings in _SETTINGS
    )
