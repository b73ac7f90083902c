"""A pod's annotations -> what it wants steered, who said so, and who was overruled.

Precedence is headgate > Istio > Linkerd > Kuma in each family of keys, never merged (DESIGN 4); a family of which no
annotation speaks is as the node's defaults have it. What is overruled is not even read: it may be wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Final

from agent.plan.annotation_keys import (
    ASIDES,
    FAMILIES,
    INCLUDE_OUTBOUND,
    KNOWN,
    NETWORK_KEYS,
    STEERING_PREFIXES,
    Family,
    Key,
    Mesh,
)
from agent.plan.errors import InvalidPlan
from agent.plan.ranges import Ranges
from agent.plan.steering import DnsCapture, Included, OwnerPorts, Steering, UdpPolicy, VirtualInterface
from agent.plan.words import ALL, shown
from agent.pods import Pairs
from agent.printable import printable

NODE_WIDE: Final = "node-wide default"
"""Stands where a key does, when what is in force was set for all pods."""
_KEY_SHOWN: Final = 120
_NEUTRAL: Final = Steering()


@dataclass(frozen=True, slots=True)
class Origin:
    """Who decided what: `what` names the family of keys; `overruled` are (key, value) that somebody else said."""

    what: str
    key: str
    value: str
    overruled: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Noted:
    """An annotation of a peer that was read and changes nothing here, and why."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wishes:
    steering: Steering
    origins: tuple[Origin, ...] = ()
    noted: tuple[Noted, ...] = ()

    def named(self, fields: str) -> str:
        """What people know these fields of Steering by (names, with commas between): `annotation KEY` where one decided
        them, the name itself where none did."""
        return ", ".join(dict.fromkeys(self._named(field) for field in fields.split(", ")))

    def _named(self, field: str) -> str:
        what = next((family.name for family in FAMILIES if family.field == field), None)
        keys = [origin.key for origin in self.origins if origin.what == what and origin.key != NODE_WIDE]
        return f"annotation {' and '.join(keys)}" if keys else field


def steering_of(annotations: Pairs, defaults: Steering) -> Wishes:
    """Raises InvalidPlan whose `field` names the annotation and whose `reason` shows the value. Do not retry."""
    given = dict(annotations)
    noted = tuple(_noted(given))
    _refuse_misspelt(given)
    changes: dict[str, Any] = {}
    origins: list[Origin] = []
    for family in FAMILIES:
        said = [key for key in family.keys if key.name in given]
        if said:
            decide = _decide_included if family is INCLUDE_OUTBOUND else _decide
            changes[family.field], origin = decide(family, said, given, defaults)
            origins.extend(origin)
        else:
            origins.extend(_of_the_node(family, defaults))
    return Wishes(replace(defaults, **changes), tuple(origins), noted)


# ── Who decides ────────────────────────────────────────────────────────────────────────────────────────────────────
_Decision = tuple[Any, tuple[Origin, ...]]


def _decide(family: Family, said: list[Key], given: Mapping[str, str], defaults: Steering) -> _Decision:
    winner, *losers = said
    overruled = _overruled(family, losers, given, defaults)
    value = _read(winner, given[winner.name])
    return value, (Origin(family.name, winner.name, printable(given[winner.name]), overruled),)


def _decide_included(family: Family, said: list[Key], given: Mapping[str, str], defaults: Steering) -> _Decision:
    """Ports and networks of one mesh together. Istio steers every address unless its networks are named, so that its
    ports alone change nothing (the injector's default for -i is `*`)."""
    winners = [key for key in said if key.mesh is said[0].mesh]
    losers = [key for key in said if key.mesh is not said[0].mesh]
    values = {key.name: _read(key, given[key.name]) for key in winners}
    everything = None in values.values() or not (_LIMITS[said[0].mesh] & values.keys())
    ports = next((value for name, value in values.items() if name not in NETWORK_KEYS), Ranges())
    networks = next((value for name, value in values.items() if name in NETWORK_KEYS), ())
    overruled = _overruled(family, losers, given, defaults)
    first, *others = [Origin(family.name, key.name, printable(given[key.name])) for key in winners]
    return None if everything else Included(ports, networks), (replace(first, overruled=overruled), *others)


_LIMITS: Final = {
    Mesh.HEADGATE: frozenset(key.name for key in INCLUDE_OUTBOUND.keys),
    Mesh.ISTIO: NETWORK_KEYS,
}
"""By mesh: which of its keys limit what is steered. Without one, everything is."""


def _overruled(
    family: Family, losers: list[Key], given: Mapping[str, str], defaults: Steering
) -> tuple[tuple[str, str], ...]:
    nodes = ((origin.key, origin.value) for origin in _of_the_node(family, defaults))
    return (*((key.name, printable(given[key.name])) for key in losers), *nodes)


def _of_the_node(family: Family, defaults: Steering) -> tuple[Origin, ...]:
    value = getattr(defaults, family.field)
    return () if value == getattr(_NEUTRAL, family.field) else (Origin(family.name, NODE_WIDE, told(value)),)


def _read(key: Key, text: str) -> Any:
    try:
        return key.read(text)
    except ValueError as error:
        reason = str(error)
        whole = "" if shown(text) in reason else f"value {shown(text)}: "
        raise InvalidPlan(f"annotation {key.name}", f"{whole}{reason}") from None


# ── What steers nothing here ───────────────────────────────────────────────────────────────────────────────────────
def _noted(given: Mapping[str, str]) -> list[Noted]:
    noted = []
    for aside in ASIDES:
        value = given.get(aside.name)
        if value is None:
            continue
        if aside.harmless is not None and value.strip() not in aside.harmless:
            raise InvalidPlan(f"annotation {aside.name}", f"value {shown(value)}: {aside.reason}")
        noted.append(Noted(aside.name, printable(value), aside.reason))
    return noted


def _refuse_misspelt(given: Mapping[str, str]) -> None:
    for key, value in sorted(given.items()):
        if key.startswith(STEERING_PREFIXES) and key not in KNOWN:
            near = get_close_matches(key[:_KEY_SHOWN], KNOWN, n=1)
            meant = f"; is {near[0]} meant?" if near else ""
            raise InvalidPlan(
                f"annotation {printable(key, _KEY_SHOWN)}", f"value {shown(value)}: nobody knows this key{meant}"
            )


# ── Values in words ────────────────────────────────────────────────────────────────────────────────────────────────
def told(value: object) -> str:
    """A field of Steering as an annotation would say it."""
    match value:
        case None:
            return ALL
        case bool():
            return "true" if value else "false"
        case UdpPolicy():
            return value.value
        case tuple():
            separator = ";" if any(isinstance(item, OwnerPorts) for item in value) else ","
            return separator.join(told(item) for item in value)
        case Included(ports=ports, networks=networks):
            return ",".join(part for part in (str(ports), told(networks)) if part)
        case OwnerPorts(protocols=protocols, ports=ports, uids=uids):
            return f"{','.join(sorted(protocol.value for protocol in protocols))}:{ports}:{uids}"
        case VirtualInterface(name=name, direct=direct):
            return ",".join(f"{name}:{network}" for network in direct) or name
        case DnsCapture(servers=servers):
            return "enabled" if servers is None else told(servers)
        case _:
            return str(value)


_FIELDS: Final = frozenset(field.name for field in fields(Steering))
if any(family.field not in _FIELDS for family in FAMILIES):
    raise AssertionError("a family of annotations names no field of Steering")
