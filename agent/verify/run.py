"""The whole matrix, once: looks around, listens, dials everything at once, and says what became of it."""

import errno
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Final

from agent.kernel.iproute import InterfaceAddress, read_interface_addresses
from agent.kernel.on_link import unused_on_link
from agent.plan import IPFamily, PlanSettings, RedirectPlan, plan_of
from agent.plan.rules import Protocol
from agent.plan.steering import Steering
from agent.pods import IPAddress
from agent.verify.matrix import ELSEWHERE, VISITOR_INTERFACE, Cell, Identity, Place, Sender, cells
from agent.verify.outcome import Outcome, Report, Result, Seen, Untold, judged
from agent.verify.probes import Flight, Listeners, Watcher, launch
from agent.verify.visitor import THERE, Visitor
from proxy.api.constants import PROOF_PORT

DAD_WAIT_S: Final = 1.2
"""Of an address under duplicate address detection (RFC 4862 5.4: one second, after a random delay of up to one)."""
_DAD_LOOK_S: Final = 0.05
_LOCK: Final = "\0headgate-verify"
_LONGEST_TURN_S: Final = 5.0
"""One takes half a second at worst, and 1.2 more for an address."""
_TURN_LOOK_S: Final = 0.01
_VERSIONS: Final = {IPFamily.IPV4: 4, IPFamily.IPV6: 6}


def verify(wanted: Steering, settings: PlanSettings, *, dad_wait_s: float = DAD_WAIT_S) -> Report:
    """Of the namespace that the calling thread is in; under a second, and `dad_wait_s` more while an address settles.

    While it runs, the proxy's ports are listened on where they are free, and what is not of these probes is reset: as
    it would be with nobody there; a proxy that begins in that moment finds them taken. Raises InvalidPlan, and OSError
    when the namespace cannot be read, or another verification goes on in it for five seconds.
    """
    plan = plan_of(wanted, settings)
    with _alone():
        began = time.monotonic()
        outcomes, untried = _tried(plan, wanted, settings, _settled(dad_wait_s))
    return Report(tuple(outcomes), tuple(untried), time.monotonic() - began)


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time in one namespace: a second one would take the first one's listeners for a proxy's. An abstract Unix
    socket belongs to its network namespace, and goes with the process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        until = time.monotonic() + _LONGEST_TURN_S
        while not _bound(lock):
            if time.monotonic() >= until:
                raise OSError(errno.EBUSY, "another `rules verify` is at work here")
            time.sleep(_TURN_LOOK_S)
        yield


def _bound(lock: socket.socket) -> bool:
    try:
        lock.bind(_LOCK)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _tried(
    plan: RedirectPlan, wanted: Steering, settings: PlanSettings, addresses: tuple[InterfaceAddress, ...]
) -> tuple[list[Outcome], list[str]]:
    with closing(Listeners()) as listeners:
        places, untried = _places(wanted, settings, addresses, listeners)
        with ExitStack() as stack:
            visitor = _visitor([place.family for place in places])
            if isinstance(visitor, Visitor):
                stack.enter_context(visitor)
                places = [replace(place, visitor=THERE[place.family]) for place in places]
            made = _cells(plan, wanted, settings, places)
            for cell in made:
                if cell.sender is Sender.OUTSIDE:  # where nobody listens, a reset is all there is to be seen
                    listeners.open(cell.destination.version, cell.port)
            return _outcomes_of_two(made, listeners, visitor), untried


def _cells(plan: RedirectPlan, wanted: Steering, settings: PlanSettings, places: Iterable[Place]) -> list[Cell]:
    own = Identity(os.geteuid(), os.getegid())
    return [cell for place in places for cell in cells(plan, wanted, settings, place, own)]


def _outcomes_of_two(wanted: list[Cell], listeners: Listeners, visitor: Visitor | str) -> list[Outcome]:
    """What fails is tried once more: a fault of the rules fails always, while a packet may get lost, or meet what
    conntrack remembers of somebody's connection with the same addresses and ports."""
    watcher = Watcher(listeners)  # one for both: what conntrack looks at shows by all connections together
    outcomes = _outcomes(wanted, watcher, visitor)
    failed = [outcome.cell for outcome in outcomes if outcome.result is Result.FAILED]
    if not failed:
        return outcomes
    listeners.forget()
    again = {outcome.cell: outcome for outcome in _outcomes(failed, watcher, visitor)}
    return [_second(outcome, again.get(outcome.cell)) for outcome in outcomes]


def _second(first: Outcome, second: Outcome | None) -> Outcome:
    if second is None or second.result is Result.FAILED:
        return second or first
    return replace(second, reason=f"{second.reason}; at the second attempt, the first: {first.reason}")


def _outcomes(wanted: list[Cell], watcher: Watcher, visitor: Visitor | str) -> list[Outcome]:
    told: dict[Cell, Seen | Untold] = {}
    flights: list[Flight] = []
    try:
        for cell in wanted:
            flight = _launched(cell, visitor)
            if isinstance(flight, Untold):
                told[cell] = flight
                continue
            flights.append(flight)
            watcher.note(flight)
        told |= watcher.watch(flights)
    finally:
        for flight in flights:
            flight.socket.close()
    return [judged(cell, told[cell]) for cell in wanted]


def _launched(cell: Cell, visitor: Visitor | str) -> Flight | Untold:
    if cell.sender is not Sender.OUTSIDE:
        return launch(cell, lambda call: call())
    if isinstance(visitor, str):
        return Untold(visitor)
    if cell.family not in visitor.families:
        return Untold(f"a new interface here has no {cell.family.value} (net.ipv6.conf.default.disable_ipv6)")
    return launch(cell, visitor.call)


def _visitor(families: list[IPFamily]) -> Visitor | str:
    """Or why nothing can arrive."""
    try:
        return Visitor(families)
    except FileExistsError:
        return f"nobody outside can be made: an interface {VISITOR_INTERFACE} is here already, and not of ours"
    except OSError as error:
        return (
            f"nobody outside can be made ({error.strerror}): needs CAP_SYS_ADMIN and CAP_NET_ADMIN; "
            "the agent proves it from the node"
        )


# ── Where ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _settled(wait_s: float) -> tuple[InterfaceAddress, ...]:
    deadline = time.monotonic() + wait_s
    while True:
        found = read_interface_addresses()
        settling = any(a.tentative and not a.duplicate and not a.address.is_link_local for a in found)
        if not settling or time.monotonic() >= deadline:
            return found
        time.sleep(_DAD_LOOK_S)


def _places(
    wanted: Steering, settings: PlanSettings, addresses: tuple[InterfaceAddress, ...], listeners: Listeners
) -> tuple[list[Place], list[str]]:
    places: list[Place] = []
    untried: list[str] = []
    for family in IPFamily:
        own = _own(addresses, family)
        if isinstance(own, str):
            untried.append(own)
            continue
        version = _VERSIONS[family]
        for port in (settings.outbound_port, settings.inbound_port, settings.tunnel_port):
            listeners.open(version, port)
        if wanted.dns is not None:
            for protocol in Protocol:
                listeners.open(version, settings.dns_port, protocol)
        elsewhere = _elsewhere(family, own, addresses)
        interface = socket.if_indextoname(own.interface)
        places.append(Place(family, own.address, elsewhere, interface, listeners.open(version, 0)))
    return places, untried


def _elsewhere(
    family: IPFamily, own: InterfaceAddress, addresses: tuple[InterfaceAddress, ...]
) -> tuple[IPAddress, ...]:
    """Where nobody is: a documentation address, if there is a way to it; else one on the link that is not known to be
    anybody's, which a neighbour may have all the same."""
    others = [found.address for found in addresses]
    unused = unused_on_link(own.address, own.prefix_length, others, secrets.randbits(64))
    nobody = ELSEWHERE[family]
    if unused is None or _is_routed(nobody):
        return (nobody,) if unused is None else (nobody, unused)
    return (unused, nobody)


def _is_routed(address: IPAddress) -> bool:
    """Connecting a UDP socket asks for the route and sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        return sock.connect_ex((str(address), PROOF_PORT)) == 0


def _own(addresses: tuple[InterfaceAddress, ...], family: IPFamily) -> InterfaceAddress | str:
    """An address to be dialled at and from, or why there is none."""
    version = _VERSIONS[family]
    found = [
        a
        for a in addresses
        if a.address.version == version
        and not a.address.is_loopback
        and not a.address.is_link_local
        and a.interface != 1  # lo's own: ::6
    ]
    usable = next((a for a in found if not a.tentative and not a.duplicate), None)
    if usable is not None:
        return usable
    if found:
        state = "a duplicate" if found[0].duplicate else "still tentative (duplicate address detection)"
        return f"IPv{version}: {found[0].address} is {state}"
    return f"IPv{version}: no address but loopback and link-local ones"
