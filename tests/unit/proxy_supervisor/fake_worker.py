"""A worker that says the right things and forwards nothing: the supervisor's opposite in its own tests.

Modes (last argument): `plain`; `deaf` never answers ServePod; `mortal` ends when it serves a pod for the first time,
which the file beside its mode (MORTAL_FILE) remembers; `stubborn` ignores Stop. A connection on a pod's listener is
answered with `worker PID generation G` and reported as a proof with nonce 32 × "a".
"""

import argparse
import os
import selectors
import signal
import socket
import sys
from pathlib import Path

from proxy.link import Link, LinkClosed, close_descriptors
from proxy.telemetry.series import CounterKey, TelemetryDelta
from proxy.workerlink import (
    ForgetPod,
    ListenerKind,
    PodForgotten,
    PodServed,
    PolicyInForce,
    ProofSeen,
    ReportTelemetry,
    ServePod,
    Stop,
    TelemetryReport,
    UsePolicy,
    WorkerReady,
)

NONCE = "a" * 32


class FakeWorker:
    def __init__(self, link: Link, mode: str) -> None:
        self.link = link
        self.mode = mode
        self.generation = 0
        self.pods: dict[str, list[socket.socket]] = {}
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
            case ServePod():
                self.serve(message, descriptors)
            case ForgetPod(uid, _):
                for listener in self.pods.pop(uid, []):
                    self.selector.unregister(listener)
                    listener.close()
                self.link.send(PodForgotten(uid, 0))
            case UsePolicy(snapshot):
                self.generation = snapshot.generation
                self.link.send(PolicyInForce(snapshot.generation))
            case ReportTelemetry(request_id):
                key = CounterKey("headgate_fake_reports", (), ())
                self.link.send(TelemetryReport(request_id, TelemetryDelta(counters=((key, 1),))))
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
        for kind, listener in zip(message.listeners, listeners, strict=True):
            self.selector.register(listener, selectors.EVENT_READ, (message.pod.netns_cookie, kind))
        self.pods[message.pod.uid] = listeners
        self.link.send(PodServed(message.pod.uid))

    def accept(self, listener: socket.socket, cookie: int, kind: ListenerKind) -> None:
        accepted, _ = listener.accept()
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
