"""The tables of docs/rules.md: every rule that a plan can hold, chain by chain, in the order that the plans have."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from itertools import pairwise
from typing import Final

from agent.plan import PlanSettings, RedirectPlan, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.render.iptables import table_and_chain
from agent.plan.render.nft import ANCHOR_TABLE, TABLE, chain_of, rule_expression
from agent.plan.rules import IPFamily, Rule
from agent.plan.steering import DnsCapture, UdpPolicy, VirtualInterface
from tests.golden.agent.rule_notes import Note, note_of
from tests.golden.agent.steerings import DEFAULT, EVERYTHING, NODE, PROBED_NODE, SIDECAR_OF_MANY, TRANSPARENT_SIDECAR

BEGIN: Final = "<!-- rules: written by `make golden` -->\n"
END: Final = "<!-- /rules -->\n"

_MODES: Final[tuple[PlanSettings, ...]] = (
    NODE,
    PROBED_NODE,
    SIDECAR_OF_MANY,
    TRANSPARENT_SIDECAR,
    replace(SIDECAR_OF_MANY, own_pod=False),
)
_DNS: Final = DnsCapture()
WISHES: Final[tuple[Steering, ...]] = (
    DEFAULT,
    replace(EVERYTHING, dns=replace(EVERYTHING.dns, over_loopback=False) if EVERYTHING.dns else None),
    Steering(
        dns=_DNS,
        udp=UdpPolicy.DENY,
        exclude_gids=Ranges.of(7),
        exclude_outbound_ports=Ranges.of(5432),
        exclude_outbound_networks=EVERYTHING.exclude_outbound_networks,
    ),
    Steering(
        include_inbound_ports=Ranges.of(8080),
        virtual_interfaces=(VirtualInterface("br+", (ip_network("172.17.0.0/16"), ip_network("fd17::/16"))),),
        dns=_DNS,
        drop_invalid=True,
    ),
    *(Steering(families=(family,)) for family in IPFamily),
)
"""Together they have every rule that there is: some take the place of others. Without `over_loopback`, which changes
the order."""

_NUMBERED: Final = re.compile(r"(virtual|user-ports)\d+")
_FAMILY: Final = re.compile(r"^(.*)([46])$")
_HEADING: Final = ("rule", "matches, for example", "why it is there", "when", "cases")


@dataclass(frozen=True, slots=True)
class Place:
    table: str
    chain: str
    iptables: tuple[str, str]


def plans() -> Iterator[RedirectPlan]:
    return (plan_of(wanted, settings) for wanted in WISHES for settings in _MODES)


def every_rule() -> dict[str, tuple[Place, Rule]]:
    """By id, numbers put as N; in an order that is that of every plan."""
    places: dict[str, tuple[Place, Rule]] = {}
    before: dict[str, set[str]] = {}
    for plan in plans():
        for rule in plan.all_rules:
            table = ANCHOR_TABLE if rule in plan.anchor else TABLE
            places.setdefault(general(rule.rule_id), (Place(table, chain_of(rule), table_and_chain(rule)), rule))
        for first, then in pairwise(general(rule.rule_id) for rule in plan.all_rules):
            before.setdefault(then, set()).update({first} - {then})
    return {rule_id: places[rule_id] for rule_id in _in_order(places, before)}


def _in_order(ids: Iterable[str], before: dict[str, set[str]]) -> Iterator[str]:
    """Each behind all that come before it in some plan; a cycle is a fault of the plans."""
    left = list(ids)
    while left:
        following = next(one for one in left if not before.get(one, set()).intersection(left))
        left.remove(following)
        yield following


def general(rule_id: str) -> str:
    return _NUMBERED.sub(r"\1N", rule_id)


def tables() -> str:
    """All tables, as they stand between BEGIN and END."""
    rules = every_rule()
    chains = dict.fromkeys(place for place, _ in rules.values())
    return "".join(f"\n{_section(place, rules)}" for place in sorted(chains, key=_as_met)) + "\n"


_STAGES: Final = ("raw", "mangle", "forgotten", "datagram", "nat")


def _as_met(place: Place) -> tuple[int, int, bool]:
    """Stage by stage as a packet meets them, what arrives before what is sent."""
    stage = next(number for number, name in enumerate(_STAGES) if name in place.chain)
    outbound = place.chain.endswith("output") or place.chain.startswith("out-")
    return stage, place.table != ANCHOR_TABLE, outbound


def _section(place: Place, rules: dict[str, tuple[Place, Rule]]) -> str:
    here = {rule_id: rule for rule_id, (at, rule) in rules.items() if at == place}
    table, chain = place.iptables
    head = f"### `{place.table}`, chain `{place.chain}` (iptables: {table}, `{chain}`)\n\n"
    lines = (_line(ids, here[ids[0]]) for ids in _both_families(here))
    return head + "".join((_row(_HEADING), _row("---" for _ in _HEADING), *lines))


def _both_families(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """A rule of IPv4 and its twin of IPv6 are told together."""
    found: dict[str, list[str]] = {}
    for rule_id in ids:
        of_family = _FAMILY.match(rule_id)
        found.setdefault(of_family[1] if of_family else f"{rule_id} ", []).append(rule_id)
    return [tuple(group) for group in found.values()]


def _line(ids: tuple[str, ...], rule: Rule) -> str:
    note = note_of(ids[0]) or Note("", "?", "?")
    names = ", ".join(f"`{rule_id}`" for rule_id in ids)
    expression = rule_expression(rule).replace("|", "\\|")
    return _row((names, f"`{expression}`", rule.meaning, note.when, note.cases))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
