"""A worker that says the right things and forwards nothing: the supervisor's opposite in its own tests.

Modes (last argument): `plain`; `deaf` never answers ServePod; `mortal` ends when it serves a pod for the first time,
which the file beside its mode (MORTAL_FILE) remembers; `stubborn` ignores Stop; `draining` has connections of each pod
that leaves, to the end of its drain; `absorbed` does not say that any policy after the first is in force;
`holding` counts HELD connections of each pod that it serves, and has to cut as many when it is told to stop, which is
when something is written to the fifo beside its mode (`holding:FIFO`); `secretive` does not answer ReportConnections.

A connection on a pod's listener is answered, once a policy is in force, with `worker PID generation G` and reported as
a proof with nonce 32 × "a".
"""

import argparse
import os
import selectors
import signal
import socket
import sys
from pathlib import Path

from proxy.link import Link, LinkClosed, close_descriptors
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.living import LivingConnection
from proxy.telemetry.open_counts import OpenCounts
from proxy.telemetry.series import CounterKey, TelemetryDelta
from proxy.workerlink import (
    ConnectionsTold,
    CutConnection,
    ForgetPod,
    ListenerKind,
    LivingConnections,
    Ping,
    PodForgotten,
    PodServed,
    PolicyInForce,
    PolicySwitch,
    Pong,
    ProofSeen,
    ReleasePod,
    ReportConnections,
    ReportTelemetry,
    ServePod,
    ShareCounts,
    Stop,
    TelemetryReport,
    WorkerReady,
)

NONCE = "a" * 32
HELD = 3
TOLD = 3
"""Connections that it tells of, all alike."""

CONNECTION = LivingConnection(
    pod="uid-1",
    netns_cookie=4711,
    direction="outbound",
    protocol="http",
    client=SocketAddress("fd77::2", 40000),
    listener=SocketAddress("::1", 15001),
    original=SocketAddress("fd96::10", 80),
    upstream_from=SocketAddress("fd77::2", 50000),
    upstream=SocketAddress("fd77::3", 8080),
    service="web.shop.svc.cluster.local",
    route="shop/web\x1b[31m",
    workload="shop/web-1",
    age_s=1.23456,
)


class FakeWorker:
    def __init__(self, link: Link, mode: str) -> None:
        self.link = link
        self.mode = mode
        self.generation = 0
        self.pods: dict[str, list[tuple[socket.socket, tuple[int, ListenerKind]]]] = {}
        self.sequences: dict[str, int] = {}
        self.drained: dict[str, int] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(link, selectors.EVENT_READ, None)
        self.running = True

    def run(self) -> None:
        self.link.send(WorkerReady(os.getpid()))
        while self.running:
            for key, _ in self.selector.select():
                if key.data is None:
                    for message, descriptors in self.link.receive():
                        self.obey(message, descriptors)
                else:
                    self.accept(key.fileobj, *key.data)

    def obey(self, message: object, descriptors: tuple[int, ...]) -> None:
        match message:
            case ShareCounts():
                self.counts = OpenCounts(descriptors[0])
                close_descriptors(descriptors)
            case ServePod():
                self.serve(message, descriptors)
            case ForgetPod(uid, drain_s) if self.mode == "draining" and drain_s > 0:
                self.let_go(uid)
                self.drained[uid] = self.sequences.pop(uid)
            case ForgetPod(uid) if uid in self.drained:
                self.link.send(PodForgotten(uid, self.drained.pop(uid)))
            case ForgetPod(uid) | ReleasePod(uid):
                self.let_go(uid)
                self.link.send(PodForgotten(uid, self.sequences.pop(uid, 0)))
            case Ping(sequence):
                self.link.send(Pong(sequence))
            case PolicySwitch(generation):
                first, self.generation = self.generation == 0, generation
                self.listen()
                if first or self.mode != "absorbed":
                    self.link.send(PolicyInForce(generation))
            case ReportTelemetry(request_id):
                key = CounterKey("headgate_fake_reports", (), ())
                self.link.send(TelemetryReport(request_id, TelemetryDelta(counters=((key, 1),))))
            case ReportConnections() if self.mode != "secretive":
                self.tell_connections(message)
            case Stop() if self.mode.startswith("holding:"):
                self.cut_all()
            case Stop():
                self.running = self.mode == "stubborn"

    def serve(self, message: ServePod, descriptors: tuple[int, ...]) -> None:
        close_descriptors(descriptors[:1])
        if self.mode == "deaf":
            close_descriptors(descriptors[1:])
            return
        if self.mode.startswith("mortal:") and not (mark := Path(self.mode.removeprefix("mortal:"))).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        listeners = [socket.socket(fileno=fd) for fd in descriptors[1:]]
        kinds = ((message.pod.netns_cookie, kind) for kind in message.listeners)
        self.let_go(message.pod.uid)
        self.pods[message.pod.uid] = list(zip(listeners, kinds, strict=True))
        if self.generation:
            self.listen()
        self.sequences[message.pod.uid] = message.sequence
        if self.mode.startswith("holding"):
            self.counts.cell(message.count_slot)[0] = HELD
        self.link.send(PodServed(message.pod.uid, message.sequence))

    def tell_connections(self, asked: ReportConnections) -> None:
        known = asked.uid in (None, CONNECTION.pod) and asked.netns_cookie in (None, CONNECTION.netns_cookie)
        number = TOLD if known else 0
        for _ in range(min(asked.most, number)):
            self.link.send(LivingConnections(asked.request_id, (CONNECTION,)))
        self.link.send(ConnectionsTold(asked.request_id, max(0, number - asked.most)))

    def cut_all(self) -> None:
        """In the end the one who writes to the fifo says when."""
        for listeners in self.pods.values():
            for listener, _ in listeners:
                listener.close()
        Path(self.mode.removeprefix("holding:")).read_bytes()
        cut = (CutConnection(Direction.OUTBOUND, 7.0, "tcp"),) * HELD
        for uid, sequence in self.sequences.items():
            self.link.send(PodForgotten(uid, sequence, cut))
        self.running = False

    def listen(self) -> None:
        for listener, purpose in (one for listeners in self.pods.values() for one in listeners):
            if listener not in self.selector.get_map():
                self.selector.register(listener, selectors.EVENT_READ, purpose)

    def let_go(self, uid: str) -> None:
        for listener, _ in self.pods.pop(uid, []):
            if listener in self.selector.get_map():
                self.selector.unregister(listener)
            listener.close()

    def accept(self, listener: socket.socket, cookie: int, kind: ListenerKind) -> None:
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            return  # another worker was faster
        with accepted:
            host, port = accepted.getsockname()[:2]
            accepted.sendall(f"worker {os.getpid()} generation {self.generation}".encode())
        self.link.send(ProofSeen(NONCE, cookie, kind.direction, host, port))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("mode")
    options.add_argument("--link-fd", type=int, required=True)
    given = options.parse_args()
    try:
        FakeWorker(Link(socket.socket(fileno=given.link_fd)), given.mode).run()
    except LinkClosed:
        sys.exit(3)


if __name__ == "__main__":
    main()
