"""The proxy's two connections to the node agent: ZDS, which brings pods, and the object stream, which brings
objects and takes proofs.

Both are made again whenever they break; pods are served on meanwhile: an agent that restarts costs no connection.
"""

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NoReturn

from proxy.api import stream, zds
from proxy.errors import CannotServe, printable
from proxy.supervisor.object_stream import ObjectStream
from proxy.supervisor.pods import NotANetns, PodName, Pods
from proxy.supervisor.verdicts import Verdicts
from proxy.supervisor.waiting import BackOff, pause, readable
from proxy.workerlink import ProofSeen

_log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.01
LAST_PAUSE_S: Final = 15.0
"""ztunnel's back-off (src/inpod/workloadmanager.rs)."""

MAX_WAITING_PROOFS: Final = 64
"""A probe waits one second for its report: what is older than that many is of no use to anybody."""


class _AgentClosed(Exception):
    """The agent ended the connection."""


class ZdsClient:
    """Asks the agent for pods and hands them to `pods`, one request at a time, in order."""

    def __init__(self, path: Path, pods: Pods, on_change: Callable[[], None]) -> None:
        self._path = path
        self._pods = pods
        self._on_change = on_change
        self._problem = ""
        self._back_off = BackOff(FIRST_PAUSE_S, LAST_PAUSE_S)
        self._hello = zds.Hello(zds.AT_ONCE, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        self._woken = asyncio.Event()
        self._leaving = False
        self.connected = False
        self.snapshot_complete = False
        """A whole snapshot was received once since the start."""

    async def run(self) -> None:
        """Until cancelled, or until the agent's end after `leave`."""
        while not self._leaving:
            problem = await self._once()
            if problem != self._problem:
                # Once a reason, not once an attempt: an agent may be away for hours.
                _log.warning("no agent on %s: %s; pods stay as they are, trying again", self._path, problem)
                self._problem = problem
            await pause(self._back_off.next_s(), self._woken)

    def retry_now(self) -> None:
        """An agent has just shown itself elsewhere: no reason to sit out a pause."""
        if not self.connected:
            self._back_off.reset()
            self._woken.set()

    def leave(self) -> None:
        """The proxy ends: it takes no pod any more, and waits for no other agent; it still hears which pods leave."""
        self._leaving = True
        self._woken.set()

    async def _once(self) -> str:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            sock.connect(str(self._path))
            zds.send(sock, zds.encode_hello(self._hello))
            self._set_connected(True)
            self._problem = ""
            _log.info("connected to the agent on %s", self._path)
            await self._converse(sock)
        except OSError as error:
            return error.strerror or str(error)
        except _AgentClosed:
            return "the agent closed the connection"
        except (zds.ProtocolError, NotANetns) as error:
            return f"the agent broke the protocol: {printable(str(error))}"
        finally:
            sock.close()
            self._set_connected(False)

    async def _converse(self, sock: socket.socket) -> NoReturn:
        named: set[str] | None = set()
        while True:
            request, netns_fd = await self._next_request(sock)
            refusal = ""
            match request:
                case zds.AddWorkload(uid, info):
                    assert netns_fd is not None
                    if named is not None:
                        named.add(uid)
                    refusal = await self._add(PodName(uid, info.namespace, info.name, info.service_account), netns_fd)
                case zds.DeleteWorkload(uid, drain_s):
                    if named is not None:
                        named.discard(uid)
                    await self._pods.forget(uid, drain_s)
                case zds.KeepWorkload(uid):
                    if named is None:
                        raise zds.ProtocolError("`keep` after the snapshot")
                    named.add(uid)
                case zds.SnapshotSent():
                    if named is None:
                        raise zds.ProtocolError("a second end of the snapshot")
                    await self._pods.keep_only(named)
                    named = None
                    self.snapshot_complete = True
                    self._back_off.reset()
                    self._on_change()
            # A few bytes into a queue that the agent empties before it asks again: never full with an honest agent.
            zds.send(sock, zds.encode_ack(refusal))

    async def _next_request(self, sock: socket.socket) -> tuple[zds.Request, int | None]:
        while True:
            await readable(sock)
            with suppress(BlockingIOError):
                packet = zds.receive(sock)
                break
        if not packet.data:
            packet.close()
            raise _AgentClosed
        try:
            request = zds.decode_request(packet.data)
        except zds.ProtocolError:
            packet.close()
            raise
        return request, zds.take_descriptor(request, packet.descriptors)

    async def _add(self, pod: PodName, netns_fd: int) -> str:
        """The refusal, or "" when the pod is served. Takes the descriptor over."""
        if self._leaving:
            os.close(netns_fd)
            return f"pod {pod}: this proxy is ending; the next one is told"
        try:
            await self._pods.add(pod, netns_fd)
        except CannotServe as refused:
            _log.warning("%s", printable(str(refused), 1000))
            return str(refused)
        return ""

    def _set_connected(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            self._on_change()


class ProofReporter:
    """Tells the agent of each proof connection that a worker saw, and `objects` of what the agent streams. Until
    `in_force` is set, workers have no policy, which an agent that comes is told."""

    def __init__(self, path: Path, objects: ObjectStream | None = None, in_force: asyncio.Event | None = None) -> None:
        self._path = path
        self._objects = objects
        self._in_force = in_force
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING_PROOFS)
        self._writer: asyncio.StreamWriter | None = None
        self._back_off = BackOff(FIRST_PAUSE_S, LAST_PAUSE_S)
        self._woken = asyncio.Event()

    def report(self, proof: ProofSeen) -> None:
        """Now if the agent is there, otherwise as soon as it is."""
        self._waiting.append(stream.encode(_proof_message(proof)))
        self._tell()

    def retry_now(self) -> None:
        """The agent has just shown itself on the other socket: no reason to sit out a pause."""
        self._back_off.reset()
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # The ZDS client logs that the agent is away; the same agent listens here. No task group in here: one that
            # is cancelled while a task of it fails forgets the cancellation (CPython 3.11).
            try:
                await self._once()
            except (FileNotFoundError, ConnectionRefusedError):
                if self._objects is not None:
                    self._objects.refused()
            except OSError:
                pass
            except ValueError as error:
                _log.warning("the object stream breaks off, and begins anew: %s", printable(str(error)))
            await pause(self._back_off.next_s(), self._woken)

    async def _once(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=stream.MAX_OBJECT_LINE_BYTES)
        telling: list[asyncio.Task[None]] = []
        try:
            while line := await reader.readline():
                if self._writer is not None:
                    if self._objects is not None:
                        await self._objects.heard(line)
                elif isinstance(hello := stream.decode(line), stream.Hello):
                    self._back_off.reset()
                    self._writer = writer
                    if self._in_force is not None and not self._in_force.is_set():
                        writer.write(stream.encode(stream.Serving(False)))
                        telling.append(asyncio.create_task(_tell_serving(writer, self._in_force)))
                    self._tell()
                    if self._objects is not None:
                        self._objects.greeted(hello)
                        telling.append(asyncio.create_task(self._tell_verdicts(writer, self._objects.verdicts)))
        finally:
            self._writer = None
            for task in telling:
                task.cancel()
            writer.close()

    async def _tell_verdicts(self, writer: asyncio.StreamWriter, verdicts: Verdicts) -> None:
        """Until cancelled. Proofs go first: they wait for what is being sent, and for nothing that waits."""
        writer.transport.set_write_buffer_limits(high=0)
        verdicts.begin()
        with suppress(OSError):  # who reads from it notices too
            while True:
                writer.write(await verdicts.next_chunk())
                await writer.drain()
                self._tell()

    def _tell(self) -> None:
        # An agent that does not read gets no more than fits: its probes have given up by then.
        while self._writer is not None and self._waiting and not self._writer.transport.get_write_buffer_size():
            self._writer.write(self._waiting.popleft())


async def _tell_serving(writer: asyncio.StreamWriter, in_force: asyncio.Event) -> None:
    await in_force.wait()
    writer.write(stream.encode(stream.Serving(True)))


def _proof_message(proof: ProofSeen) -> stream.Proof:
    return stream.Proof(
        proof.nonce,
        proof.netns_cookie,
        "outbound" if proof.direction.value == "outbound" else "inbound",
        ip_address(proof.original_destination),
        proof.port,
    )
