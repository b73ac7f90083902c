"""A worker: one process, one thread, the data path of the pods that its supervisor gives it.

Started as `python -m proxy.worker --link-fd N` by exec, not fork: nothing of the supervisor's loop, threads or modules
comes along. Talks to its supervisor only.
"""

import argparse
import gc
import os
import random
import socket
from collections.abc import Callable
from typing import Final

from proxy.datapath.accept import Listener
from proxy.datapath.netns import NetnsEntry
from proxy.datapath.pod import Node, Pod, ProofReport
from proxy.datapath.reactor import READABLE, WRITABLE, Reactor
from proxy.link import Link, LinkClosed, close_descriptors
from proxy.model.workload import UNKNOWN, Workload
from proxy.telemetry.series import Telemetry
from proxy.workerlink import (
    ForgetPod,
    FromWorker,
    PodForgotten,
    PodServed,
    PolicyInForce,
    ProofSeen,
    ReportTelemetry,
    ServePod,
    Stop,
    TelemetryReport,
    ToWorker,
    UsePolicy,
    WorkerReady,
)

LAST_ANSWERS_S: Final = 0.5
"""What an HTTP request in flight has at least when its pod is forgotten: its namespace must be free after 2 s
(DESIGN 5), and a request that takes longer than this has its own drain time (ForgetPod.drain_s)."""


class Worker:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._reactor = Reactor()
        self._node = Node(
            reactor=self._reactor,
            telemetry=Telemetry(),
            entry=NetnsEntry(),
            chance=random.Random(),  # noqa: S311 - spreads load; nothing secret hangs on it
            report_proof=self._report_proof,
        )
        self._pods: dict[str, tuple[Pod, tuple[Listener, ...]]] = {}
        self._leaving: list[Pod] = []
        self._stopping = False

    def run(self) -> None:
        """Until the supervisor says Stop and the last connection has ended, or the supervisor is gone."""
        self._reactor.watch(self._link.fileno(), self._on_link)
        self._reactor.on_tick(self._tick)
        self._tell(WorkerReady(os.getpid()))
        self._reactor.run()

    def _on_link(self, events: int) -> None:
        try:
            if events & WRITABLE:
                self._link.flush()
            for message, descriptors in self._link.receive():
                self._obey(message, descriptors)
            self._watch_link()
        except LinkClosed:
            # A worker without a supervisor serves stale policy to pods nobody watches: the next one takes over.
            self._reactor.stop()

    def _obey(self, message: ToWorker | FromWorker, descriptors: tuple[int, ...]) -> None:
        match message:
            case ServePod():
                self._serve(message, descriptors)
            case ForgetPod(uid, drain_s):
                self._forget(uid, drain_s)
            case UsePolicy(snapshot):
                self._node.policy = snapshot
                for pod, listeners in self._pods.values():
                    self._identify(pod)
                    for listener in listeners:
                        listener.open()
                self._tell(PolicyInForce(snapshot.generation))
            case ReportTelemetry(request_id):
                self._tell(TelemetryReport(request_id, self._node.telemetry.take_delta()))
            case Stop(drain_s):
                self._stopping = True
                for uid in tuple(self._pods):
                    self._forget(uid, drain_s)
                self._end_if_idle()
            case _:
                close_descriptors(descriptors)

    def _serve(self, message: ServePod, descriptors: tuple[int, ...]) -> None:
        identity = message.pod
        self._forget(identity.uid, 0.0)
        pod = Pod(
            self._node,
            identity.uid,
            identity.namespace,
            identity.name,
            identity.service_account,
            descriptors[0],
            identity.netns_cookie,
        )
        listeners = tuple(
            Listener(pod, kind.direction, socket.socket(fileno=fd))
            for kind, fd in zip(message.listeners, descriptors[1:], strict=True)
        )
        self._identify(pod)
        self._pods[identity.uid] = (pod, listeners)
        # Before the first policy a connection waits in the listener's queue: none is served without.
        if self._node.policy is not None:
            for listener in listeners:
                listener.open()
        self._tell(PodServed(identity.uid))

    def _identify(self, pod: Pod) -> None:
        """Who the pod is by the objects; by its announcement where no object names it."""
        policy = self._node.policy
        known = None if policy is None else policy.pods.get((pod.namespace, pod.name))
        if known is None:
            account = pod.service_account or UNKNOWN
            known = Workload(pod.namespace, pod.name, pod.name, account, UNKNOWN, UNKNOWN, pod.name, "latest", (), ())
        if known != pod.workload:
            for destination in pod.destinations.values():
                for upstream in destination.upstreams():
                    upstream.retire()
            pod.destinations.clear()
            pod.workload = known

    def _forget(self, uid: str, drain_s: float) -> None:
        pod, listeners = self._pods.pop(uid, (None, ()))
        for listener in listeners:
            listener.close()
        if pod is None:
            return
        self._leaving.append(pod)
        for connection in tuple(pod.connections):
            connection.drain()
        if pod.connections:
            self._reactor.call_later(max(drain_s, LAST_ANSWERS_S), lambda: self._drained(pod))
        else:
            self._drained(pod)

    def _drained(self, pod: Pod) -> None:
        """Everything of the pod is closed: a descriptor left open would pin its namespace and veth."""
        if pod not in self._leaving:
            return  # its last connection ended before its time was over
        self._leaving.remove(pod)
        cut = len(pod.connections)
        for connection in tuple(pod.connections):
            connection.abort()
        for destination in pod.destinations.values():
            for upstream in destination.upstreams():
                upstream.retire()
        pod.destinations.clear()
        os.close(pod.netns_fd)
        self._tell(PodForgotten(pod.uid, cut))
        self._end_if_idle()

    def _tick(self, now_s: float) -> None:
        for pod in [*(pod for pod, _ in self._pods.values()), *self._leaving]:
            for connection in tuple(pod.connections):
                connection.expire(now_s)
            for destination in pod.destinations.values():
                for upstream in destination.upstreams():
                    upstream.expire(now_s)
        for pod in tuple(self._leaving):
            if not pod.connections:
                self._drained(pod)

    def _end_if_idle(self) -> None:
        if self._stopping and not self._pods and not self._leaving:
            self._tell(TelemetryReport(0, self._node.telemetry.take_delta()))
            self._reactor.stop()

    def _report_proof(self, proof: ProofReport) -> None:
        self._tell(ProofSeen(proof.nonce, proof.netns_cookie, proof.direction, proof.original_destination, proof.port))

    def _tell(self, message: FromWorker) -> None:
        self._link.send(message)
        self._watch_link()

    def _watch_link(self) -> None:
        self._reactor.change(self._link.fileno(), READABLE | (WRITABLE if self._link.wants_write else 0))


def main(run: Callable[[Worker], None] = Worker.run) -> None:
    parser = argparse.ArgumentParser(prog="headgate-worker", description="Started by `headgate proxy` only.")
    parser.add_argument("--link-fd", type=int, required=True)
    link = Link(socket.socket(fileno=parser.parse_args().link_fd))
    # What exists now lives as long as the process; the collector need not look at it again. Connections free
    # themselves by reference counting: a full collection among 10,000 of them would be a pause of tens of ms.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        run(Worker(link))
    finally:
        link.close()


if __name__ == "__main__":
    main()
