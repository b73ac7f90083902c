"""The four proofs that a pod's traffic really reaches its proxy: outbound and inbound, IPv4 and IPv6.

Outbound, a connection is made inside the pod's namespace, unmarked, as an application would; inbound, from the agent's
own (the node's) to the pod's address: a flow that begins inside proves only the OUTPUT rules. Each carries a nonce; the
proxy reports it with what it saw of the connection, so an application that merely answers proves nothing. A proxy that
cannot report (a foreign one) is proved by the conntrack entry of the flow.

250 pods are proved each minute, so a proof that holds is cheap: one visit of the namespace, no task, no stream, nothing
waited for but the four reports together. What takes longer is done for proofs that fail.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol, TypeVar

from agent.kernel import conntrack, sock_diag
from agent.kernel.dial import NOBODY, Flow, Flows, Inside, dial_in, dial_out, look_inside, make_nonces
from agent.kernel.netns import NetnsThreads, OpenNetns
from agent.plan import RedirectPlan
from agent.pods import PodRef, Proof, Proofs, ProofStatus
from agent.printable import printable
from proxy.api import stream
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROOF_PORT

T = TypeVar("T")

TIMEOUT_S: Final = 1.0
"""For each proof, from connect to report; all four run at once (DESIGN 5)."""
DAD_WAIT_S: Final = 2.5
"""Duplicate address detection takes one probe of 1 s after a random delay of up to 1 s (RFC 4862 5.4.2)."""
_DAD_LOOK_S: Final = 0.1
_LISTENER: Final[dict[stream.Direction, int]] = {"outbound": OUTBOUND_PORT, "inbound": INBOUND_PORT}

_SILENT: Final = "the proxy waits for its policy or the pod's object, or somebody else listens there"
_OK: Final = Proof(ProofStatus.OK)


class Expected(Protocol):
    """The reports of some nonces; agent.handoff.reports.Expected."""

    @property
    def done(self) -> asyncio.Future[None]: ...

    @property
    def reports(self) -> dict[str, stream.Proof]: ...

    def give_up(self, nonce: str) -> None: ...


class Reports(Protocol):
    """Where the proxy's reports arrive: agent.handoff.reports.Reports."""

    def expect(self, nonces: Iterable[str]) -> Expected: ...

    def forget(self, nonces: Iterable[str]) -> None: ...


class ReportSource(Protocol):
    """agent.handoff.objects.ObjectsServer."""

    @property
    def connected(self) -> bool: ...

    @property
    def reports(self) -> Reports: ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a visit found; `untaken` None: nothing was dialled, because addresses are settling."""

    inside: Inside
    untaken: dict[str, Proof] | None = None


async def prove(
    pod: PodRef,
    netns: OpenNetns,
    threads: NetnsThreads,
    source: ReportSource,
    *,
    timeout_s: float = TIMEOUT_S,
    dad_wait_s: float = DAD_WAIT_S,
) -> Proofs:
    """Takes the four proofs of `pod`, whose namespace is `netns`; takes `timeout_s` at most, and up to `dad_wait_s`
    more while an IPv6 address is tentative.

    A proof that cannot be taken says why; nothing is raised for what a pod, a proxy or a network does. OSError when
    the namespace itself cannot be entered or read.
    """
    proofs, _ = await prove_beside(
        pod, netns, threads, source, lambda: None, timeout_s=timeout_s, dad_wait_s=dad_wait_s
    )
    return proofs


async def prove_beside(
    pod: PodRef,
    netns: OpenNetns,
    threads: NetnsThreads,
    source: ReportSource,
    beside: Callable[[], T],
    *,
    plan: RedirectPlan | None = None,
    timeout_s: float = TIMEOUT_S,
    dad_wait_s: float = DAD_WAIT_S,
) -> tuple[Proofs, T]:
    """As `prove`, of what `plan` steers; and the result of `beside`, called inside the namespace on the same visit.
    Raises what that does."""
    reported = source.connected
    nonces, flows = make_nonces(), Flows(asks=reported)
    expected = source.reports.expect(nonces.values())  # before anything is dialled: the proxy may be quicker
    try:
        inside, untaken, result = await _dial(pod, plan, netns, threads, nonces, flows, beside, dad_wait_s)
        untaken |= dial_in(inside, pod, nonces, flows, plan)
        taker = _Taker(netns, threads, inside, timeout_s)
        if reported:
            taken = await taker.by_report(flows, expected, nonces)
        else:
            taken = await taker.by_conntrack(flows)
    finally:
        source.reports.forget(nonces.values())
        flows.close()
    all_four = untaken | taken
    return Proofs(*(all_four[name] for name in ("out4", "out6", "in4", "in6"))), result


async def _dial(
    pod: PodRef,
    plan: RedirectPlan | None,
    netns: OpenNetns,
    threads: NetnsThreads,
    nonces: dict[str, str],
    flows: Flows,
    beside: Callable[[], T],
    dad_wait_s: float,
) -> tuple[Inside, dict[str, Proof], T]:
    """The outbound ones, once no address is tentative any more, or after `dad_wait_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + dad_wait_s

    def visit(settle: bool) -> tuple[_Seen, T | None]:
        inside = look_inside()
        if settle and inside.settling:
            return _Seen(inside), None
        return _Seen(inside, dial_out(inside, pod, nonces, flows, plan)), beside()

    while True:
        seen, result = await threads.run(netns, visit, loop.time() < deadline)
        if seen.untaken is not None:
            return seen.inside, seen.untaken, result  # type: ignore[return-value]  # T may be None itself
        await asyncio.sleep(_DAD_LOOK_S)


@dataclass(frozen=True, slots=True)
class _Taker:
    """How flows that were dialled become proofs."""

    netns: OpenNetns
    threads: NetnsThreads
    inside: Inside
    timeout_s: float

    async def by_report(self, flows: Flows, expected: Expected, nonces: dict[str, str]) -> dict[str, Proof]:
        asked = {flow.nonce for flow in flows if not flow.refused}
        for nonce in nonces.values():
            if nonce not in asked:
                expected.give_up(nonce)
        waiting = [flow for flow in flows if not flow.asked and not flow.refused]
        loop = asyncio.get_running_loop()
        try:
            for flow in waiting:
                loop.add_writer(flow.socket.fileno(), _connected, loop, flow, expected)
            if not expected.done.done():
                await asyncio.wait((expected.done,), timeout=self.timeout_s)
        finally:
            for flow in waiting:
                loop.remove_writer(flow.socket.fileno())
        return {flow.name: await self._judge(flow, expected.reports.get(flow.nonce)) for flow in flows}

    async def by_conntrack(self, flows: Flows) -> dict[str, Proof]:
        loop = asyncio.get_running_loop()
        pending = {flow.name: _writable(loop, flow) for flow in flows if not flow.refused}
        try:
            if pending:
                await asyncio.wait(pending.values(), timeout=self.timeout_s)
        finally:
            for flow in flows:
                loop.remove_writer(flow.socket.fileno())
        proofs: dict[str, Proof] = {}
        for flow in flows:
            if flow.refused or not _is_connected(flow.socket):
                proofs[flow.name] = await self._failed(flow)
            else:
                proofs[flow.name] = await self._by_conntrack(flow)
        return proofs

    async def _judge(self, flow: Flow, report: stream.Proof | None) -> Proof:
        if report is None:
            return await self._unreported(flow)
        seen = (report.direction, report.original_destination, report.port)
        if report.netns_cookie != self.inside.cookie:
            return Proof(ProofStatus.FAILED, f"{flow.dialled} reached the proxy in another pod's namespace")
        if seen != (flow.direction, flow.target, PROOF_PORT):
            there = f"{report.direction} to {report.original_destination} port {report.port}"
            return Proof(ProofStatus.FAILED, f"the proxy saw {there}, sent was {flow.direction} to {flow.dialled}")
        return _OK

    async def _unreported(self, flow: Flow) -> Proof:
        if flow.refused or not flow.asked:
            return await self._failed(flow)
        answer = _answer(flow.socket)
        if answer == stream.PROOF_ANSWER:
            return Proof(ProofStatus.FAILED, "the proxy answered, but its report did not arrive on objects.sock")
        if answer:
            found = f"somebody else than the proxy was reached at {flow.dialled}: it answered"
            return Proof(ProofStatus.FAILED, f"no report of the nonce; {found} {printable(repr(answer), 60)}")
        where = f"{flow.dialled} within {self.timeout_s:g} s"
        return Proof(ProofStatus.FAILED, f"nothing was answered at {where}: {_SILENT}")

    async def _failed(self, flow: Flow) -> Proof:
        """Why there is no connection."""
        if flow.refused == 0:
            return Proof(ProofStatus.FAILED, self._no_answer(flow))
        if flow.refused == errno.ECONNREFUSED:
            return Proof(ProofStatus.FAILED, await self._refused(flow))
        if flow.refused == errno.ENETUNREACH and flow.target in NOBODY.values():
            return Proof(ProofStatus.ABSENT, "no unused on-link address to dial, and no default route")
        return Proof(ProofStatus.FAILED, f"{flow.dialled}: {os.strerror(flow.refused)}")

    async def _by_conntrack(self, flow: Flow) -> Proof:
        source, source_port = flow.socket.getsockname()[:2]
        original = conntrack.Tuple(ip_address(source), source_port, flow.target, PROOF_PORT)
        entry = await self.threads.run(self.netns, conntrack.find, original)
        wanted = _LISTENER[flow.direction]
        if entry is None:
            return Proof(ProofStatus.FAILED, f"conntrack in the pod knows no flow to {flow.dialled}")
        if entry.steered_to != wanted:
            where = "not at all" if entry.steered_to is None else f"to port {entry.steered_to}"
            return Proof(ProofStatus.FAILED, f"{flow.dialled} was redirected {where}, not to {wanted}")
        return _OK

    async def _refused(self, flow: Flow) -> str:
        """Whether the refusal came from the proxy's empty place, or from where the rules did not apply."""
        port = _LISTENER[flow.direction]
        listening = await self.threads.run(self.netns, sock_diag.listeners)
        if any(listener.port == port for listener in listening):
            return f"{flow.dialled} refused, though {port} listens: the rules did not capture the connection"
        return f"connection refused: nobody listens on {port} in the pod; is the proxy running?"

    def _no_answer(self, flow: Flow) -> str:
        what = "an unused address, so the rules did not capture it" if flow.direction == "outbound" else "the pod"
        return f"no answer from {flow.dialled} within {self.timeout_s:g} s: {what}, or its packets are dropped"


def _connected(loop: asyncio.AbstractEventLoop, flow: Flow, expected: Expected) -> None:
    """The handshake took longer than the call, and has ended in one way or the other."""
    flow.ask()
    if flow.asked:
        loop.remove_writer(flow.socket.fileno())
        if flow.refused:
            expected.give_up(flow.nonce)


def _writable(loop: asyncio.AbstractEventLoop, flow: Flow) -> asyncio.Future[None]:
    done: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        loop.remove_writer(flow.socket.fileno())
        flow.refused = flow.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not done.done():
            done.set_result(None)

    loop.add_writer(flow.socket.fileno(), ready)
    return done


def _answer(sock: socket.socket) -> bytes:
    """What has come so far; empty for nothing, or a reset."""
    try:
        return sock.recv(len(stream.PROOF_ANSWER))
    except OSError:
        return b""


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
