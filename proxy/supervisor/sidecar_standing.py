"""How a sidecar finds out how it stands in its pod: by trial, once its listeners are open and before it serves."""

import asyncio
import logging
import os
import socket
from typing import Final

from proxy.api.constants import PASSTHROUGH4, PASSTHROUGH6
from proxy.datapath.standing import CallFrom, Standing
from proxy.errors import CannotStart
from proxy.supervisor import trials
from proxy.supervisor.trials import Outcome, Permissions

_log = logging.getLogger(__name__)

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_NAMES: Final = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
_PASSTHROUGH: Final = {socket.AF_INET: PASSTHROUGH4, socket.AF_INET6: PASSTHROUGH6}


async def find_standing(permitted: Permissions) -> Standing:
    """Raises CannotStart when the pod's rules lead this process's own connections back to it: it would call itself
    without end."""
    own = {family: address for family in FAMILIES if (address := trials.own_address(family))}
    # Only rules that know this process by its user lead it to its own pod's inbound listener; the mark would take it
    # past that listener's policy. In doubt it is set: a call without policy is better than one without end.
    by_owner = [await trials.call_application(address, "", marks=False) for address in own.values()]
    marks = permitted.mark and Outcome.LED_BACK not in by_owner
    elsewhere = await asyncio.gather(*(trials.call_elsewhere(family, marks) for family in FAMILIES))
    for family, outcome in zip(FAMILIES, elsewhere, strict=True):
        if outcome is Outcome.LED_BACK:
            raise CannotStart(f"what this process sends over {_NAMES[family]} is led back to itself: {_unknown_to()}")
    # Nobody calls an application that has no address of a family.
    ways = {family: await _call_from(family, address, permitted, marks) for family, address in own.items()}
    from4, from6 = (ways.get(family, CallFrom.PASSTHROUGH) for family in FAMILIES)
    return Standing(own_netns=True, marks=marks, from4=from4, from6=from6)


async def _call_from(family: socket.AddressFamily, own: str, permitted: Permissions, marks: bool) -> CallFrom:
    name, passthrough = _NAMES[family], _PASSTHROUGH[family]
    if permitted.mark and permitted.transparent and await trials.call_with_a_strangers_address(own):
        _log.info("the application sees its %s clients' own addresses", name)
        return CallFrom.CLIENT
    through = await trials.call_application(own, passthrough, marks)
    if through is Outcome.NOT_LED_BACK:
        _log.info("the application sees its %s clients as %s", name, passthrough)
        return CallFrom.PASSTHROUGH
    why = "is not on lo" if through is Outcome.NO_SUCH_SOURCE else "is led back by the rules"
    if await trials.call_application(own, "", marks) is Outcome.NOT_LED_BACK:
        _log.warning("the application sees its %s clients as %s: %s %s", name, own, passthrough, why)
        return CallFrom.POD
    if through is Outcome.LED_BACK:
        raise CannotStart(
            f"what this process sends over {name} to its own application is led back to itself: {_unknown_to()}"
        )
    _log.error(
        "%s calls of the application are refused: what comes from the pod's own address is led back, and %s %s; "
        "`headgate init` adds it: ip address add %s/128 dev lo",
        name,
        passthrough,
        why,
        passthrough,
    )
    return CallFrom.PASSTHROUGH


def _unknown_to() -> str:
    return (
        f"the pod's rules do not know it as the proxy; it runs as user {os.geteuid()}, group {os.getegid()}: run it as "
        "one that `headgate init` was told with --proxy-uid or --proxy-gid (1337), or with CAP_NET_ADMIN where the "
        "rules go by mark"
    )
