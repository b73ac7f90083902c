"""The four proofs that a pod's traffic really reaches its proxy: outbound and inbound, IPv4 and IPv6.

Outbound, a connection is made inside the pod's namespace, unmarked, as an application would; inbound, from the agent's
own (the node's) to the pod's address: a flow that begins inside proves only the OUTPUT rules. Each carries a nonce; the
proxy reports it with what it saw of the connection, so an application that merely answers proves nothing. A proxy that
cannot report (a foreign one) is proved by the conntrack entry of the flow.
"""

import asyncio
import errno
import secrets
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol

from agent.kernel import conntrack, sock_diag
from agent.kernel.iproute import InterfaceAddress, read_interface_addresses
from agent.kernel.netns import NetnsThreads, OpenNetns
from agent.kernel.on_link import unused_on_link
from agent.pods import IPAddress, PodRef, Proof, Proofs, ProofStatus
from agent.printable import printable
from proxy.api import stream
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROOF_PORT

TIMEOUT_S: Final = 1.0
"""For each proof, from connect to report; all four run at once (DESIGN 5)."""
DAD_WAIT_S: Final = 2.5
"""Duplicate address detection takes one probe of 1 s after a random delay of up to 1 s (RFC 4862 5.4.2)."""
_DAD_LOOK_S: Final = 0.1
_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_LISTENER: Final[dict[stream.Direction, int]] = {"outbound": OUTBOUND_PORT, "inbound": INBOUND_PORT}

_NOBODY: Final[dict[int, IPAddress]] = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Documentation addresses (RFC 5737, RFC 3849), dialled where a pod's own subnet has no room: /32 and /128 pods."""

_OK: Final = Proof(ProofStatus.OK)


class Reports(Protocol):
    """Where the proxy's reports arrive: agent.handoff.objects.ObjectsServer."""

    @property
    def connected(self) -> bool: ...

    async def wait_for(self, nonce: str, timeout_s: float) -> stream.Proof | None: ...


@dataclass(frozen=True, slots=True)
class _Flow:
    """One proof to be taken: dial `target` with `socket`, which belongs to the namespace it starts from."""

    socket: socket.socket
    direction: stream.Direction
    target: IPAddress
    nonce: str


@dataclass(frozen=True, slots=True)
class _Inside:
    """What the pod's namespace says of itself."""

    cookie: int
    addresses: tuple[InterfaceAddress, ...]


async def prove(
    pod: PodRef,
    netns: OpenNetns,
    threads: NetnsThreads,
    reports: Reports,
    *,
    timeout_s: float = TIMEOUT_S,
    dad_wait_s: float = DAD_WAIT_S,
) -> Proofs:
    """Takes the four proofs of `pod`, whose namespace is `netns`; takes `timeout_s` at most, and up to `dad_wait_s`
    more while an IPv6 address is tentative.

    A proof that cannot be taken says why; nothing is raised for what a pod, a proxy or a network does. OSError when
    the namespace itself cannot be entered or read.
    """
    inside = await _settled(netns, threads, dad_wait_s)
    prober = _Prober(pod, netns, threads, reports, inside, timeout_s)
    out4, out6, in4, in6 = await asyncio.gather(
        prober.outbound(4), prober.outbound(6), prober.inbound(4), prober.inbound(6)
    )
    return Proofs(out4, out6, in4, in6)


async def _settled(netns: OpenNetns, threads: NetnsThreads, dad_wait_s: float) -> _Inside:
    """Waits until no address is tentative any more, `dad_wait_s` at most: nobody can dial from or to one before."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + dad_wait_s
    while True:
        inside = await threads.run(netns, _look_inside)
        waiting = any(a.tentative and not a.duplicate and not a.address.is_link_local for a in inside.addresses)
        if not waiting or loop.time() >= deadline:
            return inside
        await asyncio.sleep(_DAD_LOOK_S)


def _look_inside() -> _Inside:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        cookie = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
    return _Inside(cookie, read_interface_addresses())


def _socket(version: int) -> socket.socket:
    """A plain one, with no mark: as an application has it. Of the namespace that the calling thread is in."""
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socket(_FAMILIES[version], kind)


@dataclass(frozen=True, slots=True)
class _Prober:
    pod: PodRef
    netns: OpenNetns
    threads: NetnsThreads
    reports: Reports
    inside: _Inside
    timeout_s: float

    async def outbound(self, version: int) -> Proof:
        own = self._own(version)
        if isinstance(own, Proof):
            return own
        nonce = secrets.token_hex(stream.NONCE_DIGITS // 2)
        others = [found.address for found in self.inside.addresses]
        target = unused_on_link(own.address, own.prefix_length, others, int(nonce, 16)) or _NOBODY[version]
        try:
            sock = await self.threads.run(self.netns, _socket, version)
        except OSError as error:
            return Proof(ProofStatus.FAILED, f"no IPv{version} socket inside the pod: {error.strerror}")
        return await self._take(_Flow(sock, "outbound", target, nonce))

    async def inbound(self, version: int) -> Proof:
        own = self._own(version)
        if isinstance(own, Proof):
            return own
        try:
            sock = _socket(version)
        except OSError as error:
            return Proof(ProofStatus.FAILED, f"no IPv{version} socket on the node: {error.strerror}")
        return await self._take(_Flow(sock, "inbound", own.address, secrets.token_hex(stream.NONCE_DIGITS // 2)))

    def _own(self, version: int) -> InterfaceAddress | Proof:
        """The pod's address of a family, ready to use, or why there is none."""
        named = self.pod.addresses
        found = [
            a
            for a in self.inside.addresses
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

    async def _take(self, flow: _Flow) -> Proof:
        reported = self.reports.connected
        try:
            with flow.socket as sock:
                if reported:
                    return await self._by_report(sock, flow)
                async with asyncio.timeout(self.timeout_s):
                    await _connect(sock, flow)
                return await self._by_conntrack(sock, flow)
        except TimeoutError:
            return Proof(ProofStatus.FAILED, self._no_answer(flow))
        except ConnectionRefusedError:
            return Proof(ProofStatus.FAILED, await self._refused(flow))
        except OSError as error:
            if error.errno == errno.ENETUNREACH and flow.target in _NOBODY.values():
                return Proof(ProofStatus.ABSENT, "no unused on-link address to dial, and no default route")
            return Proof(ProofStatus.FAILED, f"{_dialled(flow)}: {error.strerror or error}")

    async def _by_report(self, sock: socket.socket, flow: _Flow) -> Proof:
        report = asyncio.create_task(self.reports.wait_for(flow.nonce, self.timeout_s))
        answer = b""
        try:
            async with asyncio.timeout(self.timeout_s):
                await _connect(sock, flow)
                answer = await _exchange(sock, flow)
            return self._judge(flow, await report, answer)
        except TimeoutError:
            if not _is_connected(sock):
                raise
            return self._judge(flow, await report, answer)
        finally:
            report.cancel()

    def _judge(self, flow: _Flow, report: stream.Proof | None, answer: bytes) -> Proof:
        if report is None and answer == stream.PROOF_ANSWER:
            return Proof(ProofStatus.FAILED, "the proxy answered, but its report did not arrive on objects.sock")
        if report is None:
            heard = f"answered {printable(repr(answer), 60)}" if answer else "said nothing"
            reached = f"somebody else than the proxy was reached at {_dialled(flow)}: it {heard}"
            return Proof(ProofStatus.FAILED, f"no report of the nonce; {reached}")
        seen = (report.direction, report.original_destination, report.port)
        if report.netns_cookie != self.inside.cookie:
            return Proof(ProofStatus.FAILED, f"{_dialled(flow)} reached the proxy in another pod's namespace")
        if seen != (flow.direction, flow.target, PROOF_PORT):
            there = f"{report.direction} to {report.original_destination} port {report.port}"
            return Proof(ProofStatus.FAILED, f"the proxy saw {there}, sent was {flow.direction} to {_dialled(flow)}")
        return _OK

    async def _by_conntrack(self, sock: socket.socket, flow: _Flow) -> Proof:
        source, source_port = sock.getsockname()[:2]
        original = conntrack.Tuple(ip_address(source), source_port, flow.target, PROOF_PORT)
        entry = await self.threads.run(self.netns, conntrack.find, original)
        wanted = _LISTENER[flow.direction]
        if entry is None:
            return Proof(ProofStatus.FAILED, f"conntrack in the pod knows no flow to {_dialled(flow)}")
        if entry.steered_to != wanted:
            where = "not at all" if entry.steered_to is None else f"to port {entry.steered_to}"
            return Proof(ProofStatus.FAILED, f"{_dialled(flow)} was redirected {where}, not to {wanted}")
        return _OK

    async def _refused(self, flow: _Flow) -> str:
        """Whether the refusal came from the proxy's empty place, or from where the rules did not apply."""
        port = _LISTENER[flow.direction]
        listening = await self.threads.run(self.netns, sock_diag.listeners)
        if any(listener.port == port for listener in listening):
            return f"{_dialled(flow)} refused, though {port} listens: the rules did not capture the connection"
        return f"connection refused: nobody listens on {port} in the pod; is the proxy running?"

    def _no_answer(self, flow: _Flow) -> str:
        what = "an unused address, so the rules did not capture it" if flow.direction == "outbound" else "the pod"
        return f"no answer from {_dialled(flow)} within {self.timeout_s:g} s: {what}, or its packets are dropped"


def _dialled(flow: _Flow) -> str:
    return f"{flow.target} port {PROOF_PORT}"


async def _connect(sock: socket.socket, flow: _Flow) -> None:
    await asyncio.get_running_loop().sock_connect(sock, (str(flow.target), PROOF_PORT))


async def _exchange(sock: socket.socket, flow: _Flow) -> bytes:
    """Sends the nonce; the answer as far as it came before the peer closed or stopped. Empty for a reset."""
    loop = asyncio.get_running_loop()
    answer = b""
    try:
        await loop.sock_sendall(sock, stream.encode_proof_request(flow.nonce))
        while len(answer) < len(stream.PROOF_ANSWER):
            data = await loop.sock_recv(sock, len(stream.PROOF_ANSWER) - len(answer))
            if not data:
                break
            answer += data
    except ConnectionError:
        return answer
    return answer


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
