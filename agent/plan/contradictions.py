"""What no plan can give, or what nobody can mean: refused by name before there is a rule."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from agent.plan.errors import InvalidPlan
from agent.plan.ranges import Ranges
from agent.plan.settings import PlanSettings
from agent.plan.steering import Steering
from agent.printable import printable

PORT_MAX: Final = 65535
ID_MAX: Final = 0xFFFFFFFE  # -1 is no id (setresuid(2), the kernel's uid_valid)
_SHOWN: Final = 80

# Stricter than the kernel's dev_valid_name(): nothing that nft, iptables or a shell reads as more than a name. A rule
# quotes it all the same. IFNAMSIZ is 16 with the final NUL, and iptables(8) counts the `+` too.
_INTERFACE: Final = re.compile(r"(?=.{1,15}\Z)[A-Za-z0-9_.@][A-Za-z0-9_.@-]*\+?")


def check(wanted: Steering, settings: PlanSettings) -> None:
    """Raises InvalidPlan. The field is that of Steering; two fields that contradict each other are named both, with a
    comma between."""
    _check_numbers(wanted)
    _check_inbound_ports(wanted, settings)
    _check_outbound_ports(wanted)
    _check_interfaces(wanted)
    if wanted.include_gids is not None and not wanted.include_gids:
        raise InvalidPlan("include_gids", "no group is named, so nothing would be steered: name one, or leave it out")
    if wanted.include_gids is not None and wanted.exclude_gids:
        reason = (
            f"groups {wanted.include_gids} included and {wanted.exclude_gids} excluded: name the ones or the others"
        )
        raise InvalidPlan("include_gids, exclude_gids", reason)
    if wanted.dns is not None and wanted.dns.servers == ():
        raise InvalidPlan("dns", "no server is named: name one, or capture the queries to all")
    if not wanted.families:
        raise InvalidPlan("families", "neither IPv4 nor IPv6: nothing would be steered")


def _check_numbers(wanted: Steering) -> None:
    for field, ports in _port_fields(wanted):
        _check_range(field, ports, 1, PORT_MAX, "ports")
    for field, ids in _id_fields(wanted):
        _check_range(field, ids, 0, ID_MAX, "ids")
    for pair in wanted.exclude_owner_ports:
        if not (pair.protocols and pair.ports and pair.uids):
            raise InvalidPlan("exclude_owner_ports", "no protocol, no port or no user: name all three")


def _port_fields(wanted: Steering) -> Iterator[tuple[str, Ranges]]:
    yield "include_inbound_ports", wanted.include_inbound_ports or Ranges()
    yield "exclude_inbound_ports", wanted.exclude_inbound_ports
    if wanted.include_outbound is not None:
        yield "include_outbound", wanted.include_outbound.ports
    yield "exclude_outbound_ports", wanted.exclude_outbound_ports
    for pair in wanted.exclude_owner_ports:
        yield "exclude_owner_ports", pair.ports


def _id_fields(wanted: Steering) -> Iterator[tuple[str, Ranges]]:
    yield "exclude_uids", wanted.exclude_uids
    yield "exclude_gids", wanted.exclude_gids
    yield "include_gids", wanted.include_gids or Ranges()
    for pair in wanted.exclude_owner_ports:
        yield "exclude_owner_ports", pair.uids


def _check_range(field: str, numbers: Ranges, least: int, most: int, what: str) -> None:
    for first, last in numbers.spans:
        if first < least or last > most:
            raise InvalidPlan(field, f"{Ranges(((first, last),))} is not within {least}-{most}, which are the {what}")


def _check_inbound_ports(wanted: Steering, settings: PlanSettings) -> None:
    names = ("include_inbound_ports", "exclude_inbound_ports")
    included, excluded = wanted.include_inbound_ports or Ranges(), wanted.exclude_inbound_ports
    _check_both(names, included, excluded)
    for name, ports in zip(names, (included, excluded), strict=True):
        own = [settings.outbound_port, settings.inbound_port]
        own += [settings.tunnel_port] if ports is included else []
        for first, last in ports.spans:
            if first == last and first in own:  # of a range nobody means that one port
                raise InvalidPlan(name, f"{first} is the proxy's own port: it is never led anywhere else")


def _check_outbound_ports(wanted: Steering) -> None:
    if wanted.include_outbound is not None:
        names = ("include_outbound", "exclude_outbound_ports")
        _check_both(names, wanted.include_outbound.ports, wanted.exclude_outbound_ports)


def _check_both(names: tuple[str, str], included: Ranges, excluded: Ranges) -> None:
    """A port taken out of a range is no contradiction: exclusion wins. What is taken out whole was included in vain."""
    for first, last in included.spans:
        if any(start <= first and last <= end for start, end in excluded.spans):
            reason = f"{Ranges(((first, last),))} is included and excluded: name it in one of them"
            raise InvalidPlan(", ".join(names), reason)


def _check_interfaces(wanted: Steering) -> None:
    virtual = tuple(interface.name for interface in wanted.virtual_interfaces)
    _check_names("exclude_interfaces", wanted.exclude_interfaces)
    _check_names("virtual_interfaces", virtual)
    for name in virtual:
        for excluded in wanted.exclude_interfaces:
            if _covers(excluded, name):
                reason = f"{name} is excluded (by {excluded}) and virtual: nothing is steered on an excluded interface"
                raise InvalidPlan("virtual_interfaces, exclude_interfaces", reason)


def _check_names(field: str, names: Iterable[str]) -> None:
    for name in names:
        if not _INTERFACE.fullmatch(name):
            shown = printable(name, _SHOWN)
            allowed = "up to 15 letters, digits and _.@-, and one + at the end for all that begin so"
            raise InvalidPlan(field, f"'{shown}' is no interface name: {allowed}")
        if _covers(name, "lo"):
            raise InvalidPlan(field, f"{name} would be lo: it is never steered, and the proxy's own way leads over it")


def _covers(pattern: str, name: str) -> bool:
    """Whether every interface that `name` stands for is one of `pattern`'s."""
    if pattern.endswith("+"):
        return name.removesuffix("+").startswith(pattern[:-1])
    return pattern == name
