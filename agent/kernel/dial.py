"""The connections that prove a pod's redirection: which ones, from where to where, and dialled without waiting.

A handshake with the proxy needs only the kernel, which does it within the calls below; so the request, too, is sent at
once, and what remains to be waited for is the proxy's report.
"""

import contextlib
import errno
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from agent.kernel.iproute import InterfaceAddress, read_interface_addresses
from agent.kernel.on_link import unused_on_link
from agent.plan import Direction, RedirectPlan
from agent.plan.judging import Opened, judge
from agent.pods import IPAddress, PodRef, Proof, ProofStatus
from proxy.api import stream
from proxy.api.constants import PROOF_PORT

_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
# `|` on the enum's members takes longer than the system call.
_KIND: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

NOBODY: Final[dict[int, IPAddress]] = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Documentation addresses (RFC 5737, RFC 3849), dialled where a pod's own subnet has no room: /32 and /128 pods."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the pod's namespace says of itself; `interfaces` are names by index."""

    cookie: int
    addresses: tuple[InterfaceAddress, ...]
    interfaces: Mapping[int, str] = field(default_factory=dict)

    @property
    def settling(self) -> bool:
        """Duplicate address detection goes on: nobody can dial from or to such an address yet."""
        return any(a.tentative and not a.duplicate and not a.address.is_link_local for a in self.addresses)

    def own(self, version: int, pod: PodRef) -> InterfaceAddress | Proof:
        """The pod's address of a family, ready to use, or why there is none."""
        named = pod.addresses
        found = [
            a
            for a in self.addresses
            if a.address.version == version and not a.address.is_loopback and not a.address.is_link_local
        ]
        wanted = [a for a in found if a.address in named] or ([] if named else found)
        usable = next((a for a in wanted if not a.tentative and not a.duplicate), None)
        if usable is not None:
            return usable
        if wanted and wanted[0].duplicate:
            return Proof(ProofStatus.FAILED, f"{wanted[0].address} is a duplicate: another host answers for it")
        if wanted:
            return Proof(ProofStatus.FAILED, f"{wanted[0].address} is still tentative (duplicate address detection)")
        return Proof(ProofStatus.ABSENT, f"the pod has no IPv{version} address")


@dataclass(slots=True)
class Flow:
    """One proof under way: `socket` belongs to the namespace that it starts from. `refused`: errno of what ended it;
    `asked`: the request has been sent."""

    name: str
    direction: stream.Direction
    target: IPAddress
    nonce: str
    socket: socket.socket
    refused: int = 0
    asked: bool = False

    @property
    def dialled(self) -> str:
        return f"{self.target} port {PROOF_PORT}"

    def dial(self, *, ask: bool) -> None:
        """Connects and asks, as far as both can be done without waiting."""
        number = self.socket.connect_ex((str(self.target), PROOF_PORT))
        if number not in (0, errno.EINPROGRESS):
            self.refused = number
        elif ask:
            self.ask()

    def ask(self) -> None:
        """Nothing happens while the connection is not there yet."""
        try:
            self.socket.send(stream.encode_proof_request(self.nonce))
        except BlockingIOError:
            return
        except OSError as error:
            self.refused = error.errno or errno.EIO
        self.asked = True


class Flows:
    """All flows of one pod's proofs. They may be dialled on another thread while whoever began them gives up.

    `asks` False: nothing is sent; a foreign proxy would pass it on.
    """

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self._lock = threading.Lock()
        self._closed = False
        self._flows: dict[str, Flow] = {}

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._flows.values())

    def dial(self, name: str, direction: stream.Direction, target: IPAddress, nonce: str) -> None:
        """From the namespace that the calling thread is in, unmarked, as an application would. OSError when there is
        no socket to be had."""
        sock = socket.socket(_FAMILIES[target.version], _KIND)
        with self._lock:
            if self._closed:
                sock.close()
                return
            flow = self._flows[name] = Flow(name, direction, target, nonce, sock)
        flow.dial(ask=self._asks)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for flow in self._flows.values():
                flow.socket.close()


def look_inside() -> Inside:
    """Of the namespace that the calling thread is in. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        cookie = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
    addresses = read_interface_addresses()
    return Inside(cookie, addresses, dict(_names({address.interface for address in addresses})))


def _names(indices: Iterable[int]) -> Iterator[tuple[int, str]]:
    for index in indices:
        with contextlib.suppress(OSError):  # it went meanwhile
            yield index, socket.if_indextoname(index)


def dial_out(
    inside: Inside, pod: PodRef, nonces: dict[str, str], flows: Flows, plan: RedirectPlan | None = None
) -> dict[str, Proof]:
    """The outbound proofs, called inside the pod's namespace; those that cannot be taken, and why. `plan`: what steers
    there, when that is known."""
    untaken: dict[str, Proof] = {}
    for version in (4, 6):
        name = f"out{version}"
        own = inside.own(version, pod)
        if isinstance(own, Proof):
            untaken[name] = own
            continue
        others = [found.address for found in inside.addresses]
        nonce = nonces[name]
        target = unused_on_link(own.address, own.prefix_length, others, int(nonce, 16)) or NOBODY[version]
        who, interface = (os.geteuid(), os.getegid()), inside.interfaces.get(own.interface)
        sent = Opened(Direction.OUTBOUND, own.address, 0, target, PROOF_PORT, *who, interface)
        if (exempt := _exempt(plan, sent)) is not None:
            untaken[name] = exempt
            continue
        try:
            flows.dial(name, "outbound", target, nonce)
        except OSError as error:
            untaken[name] = Proof(ProofStatus.FAILED, f"no IPv{version} socket inside the pod: {error.strerror}")
    return untaken


def dial_in(
    inside: Inside, pod: PodRef, nonces: dict[str, str], flows: Flows, plan: RedirectPlan | None = None
) -> dict[str, Proof]:
    """The inbound proofs, called in the node's namespace; those that cannot be taken, and why."""
    untaken: dict[str, Proof] = {}
    for version in (4, 6):
        name = f"in{version}"
        own = inside.own(version, pod)
        if isinstance(own, Proof):
            untaken[name] = own
            continue
        interface = inside.interfaces.get(own.interface)
        try:
            source = own.address if plan is None else _source_towards(own.address)
            arriving = Opened(Direction.INBOUND, source, 0, own.address, PROOF_PORT, interface=interface)
            if (exempt := _exempt(plan, arriving)) is not None:
                untaken[name] = exempt
                continue
            flows.dial(name, "inbound", own.address, nonces[name])
        except OSError as error:
            untaken[name] = Proof(ProofStatus.FAILED, f"no IPv{version} socket on the node: {error.strerror}")
    return untaken


def _source_towards(address: IPAddress) -> IPAddress:
    """Where a connection to there comes from: the kernel chooses, and nothing is sent. `address` itself without a
    route: then there is no connection either. Raises OSError when there is no socket to be had."""
    with socket.socket(_FAMILIES[address.version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect((str(address), PROOF_PORT))
        except OSError:
            return address
        return ip_address(sock.getsockname()[0])


def _exempt(plan: RedirectPlan | None, opened: Opened) -> Proof | None:
    """Nothing is to be proved of a connection that the plan leaves alone."""
    verdict = None if plan is None else judge(plan, opened)
    if verdict is None or verdict.steered is not False:
        return None
    why = verdict.why or f"nothing {opened.direction.value} is to be steered there"
    return Proof(ProofStatus.EXEMPT, f"not steered, as the pod wishes: {why}")


def make_nonces() -> dict[str, str]:
    return {name: secrets.token_hex(stream.NONCE_DIGITS // 2) for name in ("out4", "out6", "in4", "in6")}
