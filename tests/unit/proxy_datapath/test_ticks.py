"""A worker's tick: every connection is looked at, and nobody waits for all the others."""

from dataclasses import dataclass

from proxy.model.direction import Direction
from proxy.worker_pods import EXPIRED_A_TURN, HeldPod, WorkerPods
from tests.unit.proxy_datapath.doubles import served_pod, turn


@dataclass(eq=False)
class Waiting:
    """A connection that counts how often its time-outs were looked at."""

    direction: Direction = Direction.OUTBOUND
    since_s: float = 0.0
    protocol: str = "http"
    looked_at: int = 0

    def expire(self, now_s: float) -> None:
        self.looked_at += 1

    def drain(self, patient: bool) -> None: ...

    def abort(self) -> None: ...


def test_the_time_outs_of_many_connections_are_looked_at_in_shares() -> None:
    with served_pod() as pod:
        pods = WorkerPods(pod.node, lambda message: None)
        pods._serving[pod.uid] = HeldPod(pod, (), 1)
        waiting = [Waiting() for _ in range(2 * EXPIRED_A_TURN + 1)]
        pod.connections.update(waiting)
        pods.tick(1.0)
        assert sum(one.looked_at for one in waiting) == EXPIRED_A_TURN
        turn(pod.node.reactor)
        assert {one.looked_at for one in waiting} == {1}
