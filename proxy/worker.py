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

from proxy.datapath import standing
from proxy.datapath.netns import NetnsEntry, OwnNetns
from proxy.datapath.own_ends import own_ends
from proxy.datapath.pod import Node, ProofReport
from proxy.datapath.reactor import READABLE, WRITABLE, Reactor
from proxy.datapath.walk import Walk
from proxy.descriptors import leave_spare, with_spare
from proxy.link import Link, LinkClosed, close_descriptors
from proxy.model.snapshot import PolicySnapshot
from proxy.policy_intake import PolicyIntake
from proxy.telemetry.series import Telemetry
from proxy.worker_pods import WorkerPods
from proxy.workerlink import (
    IDLE_CONNECTIONS,
    AskLease,
    ConnectionsTold,
    ForgetPod,
    FromWorker,
    GrantLease,
    LeaseKey,
    LivingConnections,
    Ping,
    PodForgotten,
    PolicyInForce,
    PolicySlice,
    PolicySwitch,
    Pong,
    ProofSeen,
    RecallLease,
    ReleasePod,
    ReportConnections,
    ReportTelemetry,
    ServePod,
    ShareCounts,
    Stop,
    TelemetryReport,
    ToWorker,
    WorkerReady,
)

MESSAGES_A_TURN: Final = 16
"""Taken from the link in one go: 16 slices of policy are some 300 KB to copy, below 0.2 ms."""


class Worker:
    def __init__(self, link: Link, stands: standing.Standing = standing.NODE) -> None:
        self._link = link
        self._reactor = Reactor()
        self._node = Node(
            reactor=self._reactor,
            telemetry=Telemetry(),
            entry=OwnNetns() if stands.own_netns else NetnsEntry(),
            chance=random.Random(),  # noqa: S311 - spreads load; nothing secret hangs on it
            report_proof=self._report_proof,
            ask_idle=self._ask_idle,
            standing=stands,
            own_ends=own_ends() if stands.own_netns else None,
        )
        self._stopping = False
        self._walk: Walk | None = None
        self._pods = WorkerPods(self._node, self._tell_of_pod)
        self._intake = PolicyIntake(self._policy_in_force, lambda step: self._reactor.call_later(0.0, step))

    def run(self) -> None:
        """Until the supervisor says Stop and the last connection has ended, or the supervisor is gone."""
        leave_spare()
        self._reactor.watch(self._link.fileno(), self._on_link)
        self._reactor.on_tick(self._tick)
        self._tell(WorkerReady(os.getpid()))
        self._reactor.run()

    def _on_link(self, events: int) -> None:
        try:
            if events & WRITABLE:
                self._link.flush()
            with with_spare():
                received = self._link.receive(MESSAGES_A_TURN)
            for message, descriptors in received:
                self._obey(message, descriptors)
            self._watch_link()
        except LinkClosed:
            # A worker without a supervisor serves stale policy to pods nobody watches: the next one takes over.
            self._reactor.stop()

    def _obey(self, message: ToWorker | FromWorker, descriptors: tuple[int, ...]) -> None:
        match message:
            case ShareCounts():
                self._pods.share_counts(descriptors)
            case ServePod() if not self._stopping:
                self._pods.serve(message, descriptors)
            case ReleasePod(uid):
                self._pods.release(uid)
            case ForgetPod(uid, drain_s):
                self._pods.forget(uid, drain_s)
            case Ping(sequence):
                self._tell(Pong(sequence))
            case GrantLease(key, tokens):
                self._pods.grant(key, tokens)
            case RecallLease(key, tokens):
                self._pods.recall(key, tokens)
            case PolicySlice() | PolicySwitch():
                self._intake.take(message)
            case ReportTelemetry(request_id):
                self._tell(TelemetryReport(request_id, self._node.telemetry.take_delta()))
            case ReportConnections():
                self._report_connections(message)
            case Stop(drain_s):
                self._stopping = True
                self._pods.forget_all(drain_s)
                self._end_if_idle()
            case _:
                close_descriptors(descriptors)

    def _policy_in_force(self, snapshot: PolicySnapshot, pods_required: bool) -> None:
        self._node.policy = snapshot
        self._pods.follow_policy(pods_required)
        self._tell(PolicyInForce(snapshot.generation))

    def _report_connections(self, asked: ReportConnections) -> None:
        if self._walk is not None:
            self._walk.stop()
        self._walk = Walk(
            self._pods.pods(asked.uid, asked.netns_cookie),
            asked.most,
            lambda connections: self._tell(LivingConnections(asked.request_id, connections)),
            lambda left_out: self._tell(ConnectionsTold(asked.request_id, left_out)),
            lambda: not self._link.wants_write,
            self._reactor.call_later,
        )
        self._walk.step()

    def _end_if_idle(self) -> None:
        if self._stopping and self._pods.empty:
            self._tell(TelemetryReport(0, self._node.telemetry.take_delta()))
            self._reactor.stop()

    def _tick(self, now_s: float) -> None:
        self._pods.tick(now_s)
        self._end_if_idle()

    def _ask_idle(self, uid: str) -> None:
        self._tell(AskLease(LeaseKey(IDLE_CONNECTIONS, uid)))

    def _report_proof(self, proof: ProofReport) -> None:
        self._tell(ProofSeen(proof.nonce, proof.netns_cookie, proof.direction, proof.original_destination, proof.port))

    def _tell_of_pod(self, message: FromWorker) -> None:
        self._tell(message)
        if isinstance(message, PodForgotten):
            self._end_if_idle()

    def _tell(self, message: FromWorker) -> None:
        self._link.send(message)
        self._watch_link()

    def _watch_link(self) -> None:
        self._reactor.change(self._link.fileno(), READABLE | (WRITABLE if self._link.wants_write else 0))


def main(run: Callable[[Worker], None] = Worker.run) -> None:
    parser = argparse.ArgumentParser(prog="headgate-worker", description="Started by `headgate proxy` only.")
    parser.add_argument("--link-fd", type=int, required=True)
    parser.add_argument("--standing", type=standing.parse, default=standing.NODE)
    arguments = parser.parse_args()
    link = Link(socket.socket(fileno=arguments.link_fd))
    # What exists now lives as long as the process; the collector need not look at it again. Connections free
    # themselves by reference counting: a full collection among 10,000 of them would be a pause of tens of ms.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        run(Worker(link, arguments.standing))
    finally:
        link.close()


if __name__ == "__main__":
    main()
