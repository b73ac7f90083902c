"""A worker's pods: taken into service, released to another worker, drained, and let go without anything left open."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.datapath.accept import Listener
from proxy.datapath.client import ClientConnection
from proxy.datapath.destinations import forget_unused
from proxy.datapath.pod import Connection, Node, Pod
from proxy.link import close_descriptors
from proxy.model.workload import UNKNOWN, Workload
from proxy.telemetry.open_counts import OpenCounts
from proxy.workerlink import (
    IDLE_CONNECTIONS,
    CutConnection,
    FromWorker,
    LeaseKey,
    PodForgotten,
    PodIdentity,
    PodServed,
    ReturnLease,
    ServePod,
)

LAST_ANSWERS_S: Final = 0.5
"""What an HTTP request in flight has at least when its pod is forgotten: its namespace must be free after 2 s
(DESIGN 5), and a request that takes longer than this has its own drain time (ForgetPod.drain_s)."""

EXPIRED_A_TURN: Final = 256
"""Connections whose time-outs are looked at in one go: 0.15 ms (10,000 idle ones take 6 ms)."""

LAST_ACK_MS: Final = 500
"""How long the kernel asks for the acknowledgement of a FIN after close: a socket in FIN-WAIT-1 pins its namespace, by
default for minutes when the way back is gone already (tcp(7), tcp_orphan_retries). Of the 2 s as the last answers."""

KEEP_ALIVE_S: Final = 5.0
"""A keep-alive connection that stayed idle for so long since its drain began is closed: the shortest time-out among
common servers (Node's keepAliveTimeout), so clients know how to meet such an end between two requests."""


@dataclass(slots=True, eq=False)
class HeldPod:
    """A pod in one of its three states here: accepting (`listeners`), released (none), or leaving (draining)."""

    pod: Pod
    listeners: tuple[Listener, ...]
    sequence: int

    def close_listeners(self) -> None:
        """The queue's connections stay with whoever holds the sockets still."""
        for listener in self.listeners:
            listener.close()
        self.listeners = ()


class WorkerPods:
    """`tell` sends to the supervisor; it is called last in each method, since it may end the link."""

    def __init__(self, node: Node, tell: Callable[[FromWorker], None]) -> None:
        self._node = node
        self._tell = tell
        self._serving: dict[str, HeldPod] = {}
        self._released: dict[str, HeldPod] = {}
        self._leaving: list[HeldPod] = []
        self._pods_required = False
        self._open_counts: OpenCounts | None = None

    @property
    def empty(self) -> bool:
        return not self._serving and not self._released and not self._leaving

    def share_counts(self, descriptors: tuple[int, ...]) -> None:
        """From now on open connections are counted there. Takes the descriptor over."""
        (descriptor,) = descriptors
        try:
            self._open_counts = OpenCounts(descriptor)
        finally:
            os.close(descriptor)

    def serve(self, message: ServePod, descriptors: tuple[int, ...]) -> None:
        """Takes the descriptors over. A pod of the same namespace that is served or was released is taken up as it is:
        nothing is cut."""
        identity = message.pod
        netns_fd, *listener_fds = descriptors
        earlier = self._take_up(identity)
        if earlier is not None:
            close_descriptors((netns_fd,))
            pod = earlier.pod
            pod.idle_granted += message.idle_tokens
        else:
            name, account = identity.name, identity.service_account
            pod = Pod(self._node, identity.uid, identity.namespace, name, account, netns_fd, identity.netns_cookie)
            pod.idle_granted = message.idle_tokens
        pod.set_idle_threshold()
        if self._open_counts is not None:
            pod.open_count = self._open_counts.cell(message.count_slot)
            pod.open_count[0] = len(pod.connections)
        listeners = tuple(
            Listener(pod, kind.direction, socket.socket(fileno=fd), message.shared)
            for kind, fd in zip(message.listeners, listener_fds, strict=True)
        )
        held = self._serving[identity.uid] = HeldPod(pod, listeners, message.sequence)
        self._follow_policy(held)
        self._tell(PodServed(identity.uid, message.sequence))

    def _take_up(self, identity: PodIdentity) -> HeldPod | None:
        """What is here of the pod already. Under the same uid in another namespace it is another pod, and leaves."""
        held = self._serving.pop(identity.uid, None)
        if held is not None:
            held.close_listeners()
        else:
            held = self._released.pop(identity.uid, None)
        if held is not None and held.pod.netns_cookie != identity.netns_cookie:
            self._leave(held, 0.0)
            return None
        return held

    def release(self, uid: str) -> None:
        """Accept no more; what lives goes on as if nothing were."""
        held = self._serving.pop(uid, None)
        if held is None:
            return
        held.close_listeners()
        self._released[uid] = held
        if not held.pod.connections:
            self._end_released(held)

    def forget(self, uid: str, drain_s: float) -> None:
        """Whatever state the pod is in. Without a drain, one that drains already is hastened."""
        if drain_s <= 0:
            for held in [held for held in self._leaving if held.pod.uid == uid]:
                self._hasten(held, drain_s)
        for table in (self._serving, self._released):
            if (found := table.pop(uid, None)) is not None:
                self._leave(found, drain_s)

    def forget_all(self, drain_s: float) -> None:
        """Those that drain already have no longer than the others."""
        for held in tuple(self._leaving):
            self._hasten(held, drain_s)
        for uid in (*self._serving, *self._released):
            self.forget(uid, drain_s)

    def follow_policy(self, pods_required: bool) -> None:
        """Another policy is in force: pods may be somebody else by it, and with the first one accepting begins; where
        `pods_required`, with the first that knows the pod's own object."""
        self._pods_required = pods_required
        for held in (*self._serving.values(), *self._released.values(), *self._leaving):
            self._follow_policy(held)

    def tick(self, now_s: float) -> None:
        connections: list[Connection] = []
        for held in self._all():
            pod = held.pod
            connections += pod.connections
            for upstream in tuple(pod.resting):
                upstream.expire(now_s)
            forget_unused(pod)
            pod.sockets.close_unused()
            if pod.idle_owed:
                self._pay(pod)
        self._expire(connections, now_s)
        for held in tuple(self._leaving):
            if not held.pod.connections:
                self._end(held)
        for held in tuple(self._released.values()):
            if not held.pod.connections:
                self._end_released(held)

    def _expire(self, connections: list[Connection], now_s: float) -> None:
        """A share now, the rest in the loop's next rounds: nobody waits for the time-outs of 10,000 others."""
        for connection in connections[-EXPIRED_A_TURN:]:
            connection.expire(now_s)
        del connections[-EXPIRED_A_TURN:]
        if connections:
            self._node.reactor.call_later(0.0, lambda: self._expire(connections, now_s))

    # ── Leases ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def grant(self, key: LeaseKey, tokens: int) -> None:
        """Tokens for a pod that has gone meanwhile need no answer: PodForgotten gave all back."""
        if (held := self._find(key.uid)) is not None:
            held.pod.idle_granted += tokens
            held.pod.set_idle_threshold()

    def recall(self, key: LeaseKey, tokens: int) -> None:
        if (held := self._find(key.uid)) is not None:
            held.pod.idle_owed += tokens
            self._pay(held.pod)

    def _pay(self, pod: Pod) -> None:
        tokens = pod.take_unused_idle()
        if tokens:
            self._tell(ReturnLease(LeaseKey(IDLE_CONNECTIONS, pod.uid), tokens))

    def _find(self, uid: str) -> HeldPod | None:
        return self._serving.get(uid) or self._released.get(uid)

    # ── Steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def pods(self, uid: str | None, netns_cookie: int | None) -> list[Pod]:
        """Those that are called so; also what was released or leaves."""
        every = (held.pod for held in self._all())
        return [pod for pod in every if uid in (None, pod.uid) and netns_cookie in (None, pod.netns_cookie)]

    def _all(self) -> Iterator[HeldPod]:
        yield from tuple(self._serving.values())
        yield from tuple(self._released.values())
        yield from tuple(self._leaving)

    def _follow_policy(self, held: HeldPod) -> None:
        _identify(held.pod)
        policy = self._node.policy
        # Before the first policy a connection waits in the listener's queue: none is served without. What listens once
        # goes on: an object that vanishes before its pod does not make the pod another.
        known = policy is not None and (held.pod.namespace, held.pod.name) in policy.pods
        if known or (policy is not None and not self._pods_required):
            for listener in held.listeners:
                listener.open()

    def _leave(self, held: HeldPod, drain_s: float) -> None:
        held.close_listeners()
        self._leaving.append(held)
        pod = held.pod
        pod.draining = True
        if drain_s <= 0:
            _leave_no_orphans(pod)
        if not pod.connections:
            self._end(held)
            return
        patience_s = min(KEEP_ALIVE_S, drain_s - LAST_ANSWERS_S)
        if patience_s > 0:
            for connection in tuple(pod.connections):
                connection.drain(patient=True)
            self._node.reactor.call_later(patience_s, lambda: self._end_idle(held))
        else:
            self._end_idle(held)
        self._node.reactor.call_later(max(drain_s, LAST_ANSWERS_S), lambda: self._end(held))

    def _hasten(self, held: HeldPod, drain_s: float) -> None:
        if drain_s <= 0:
            _leave_no_orphans(held.pod)
            self._end_idle(held)
        self._node.reactor.call_later(max(drain_s, LAST_ANSWERS_S), lambda: self._end(held))

    def _end_idle(self, held: HeldPod) -> None:
        for connection in tuple(held.pod.connections):
            connection.drain(patient=False)

    def _end_released(self, held: HeldPod) -> None:
        del self._released[held.pod.uid]
        self._leaving.append(held)
        self._end(held)

    def _end(self, held: HeldPod) -> None:
        """Everything of the pod is closed: a descriptor left open would pin its namespace and veth."""
        if held not in self._leaving:
            return  # its last connection ended before its time was over
        self._leaving.remove(held)
        pod = held.pod
        now_s = time.monotonic()
        cut = tuple(
            CutConnection(connection.direction, now_s - connection.since_s, connection.protocol)
            for connection in pod.connections
            if connection.protocol
        )
        # Killed in the middle, the worker has either told of them or still counts them.
        pod.open_count = [0]
        for connection in tuple(pod.connections):
            connection.abort()
        _retire(pod)
        pod.sockets.close_unused()
        os.close(pod.netns_fd)
        self._tell(PodForgotten(pod.uid, held.sequence, cut))


def _identify(pod: Pod) -> None:
    """Who the pod is by the objects; by its announcement where no object names it."""
    policy = pod.node.policy
    known = None if policy is None else policy.pods.get((pod.namespace, pod.name))
    if known is None:
        account = pod.service_account or UNKNOWN
        known = Workload(pod.namespace, pod.name, pod.name, account, UNKNOWN, UNKNOWN, pod.name, "latest", (), ())
    if known != pod.workload:
        _retire(pod)
        pod.workload = known


def _retire(pod: Pod) -> None:
    for destination in pod.destinations.values():
        destination.retire()
    for upstream in tuple(pod.resting):
        upstream.retire()
    pod.resting.clear()
    pod.destinations.clear()


def _leave_no_orphans(pod: Pod) -> None:
    """What the kernel keeps of the pod's connections after close must not outlive the pod."""
    for connection in pod.connections:
        if isinstance(connection, ClientConnection) and connection.stream.fd >= 0:
            connection.stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LAST_ACK_MS)
    for upstream in pod.resting:
        for stream in upstream.idle:
            stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LAST_ACK_MS)
