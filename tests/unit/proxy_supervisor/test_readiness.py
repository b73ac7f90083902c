"""A proxy that cannot serve any pod does not say that it is ready; one pod that cannot be served is no reason."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from proxy.supervisor.node_policy import NodePolicy
from proxy.supervisor.pods import PendingPod, PodName, Pods
from proxy.supervisor.readiness import Readiness
from proxy.supervisor.workers import Worker

NAME = PodName("u1", "default", "web", "default")
REFUSED = PendingPod(NAME, "pod default/web: SO_MARK: Operation not permitted", forbidden=True)
TAKEN = PendingPod(NAME, "pod default/web: port 15001/tcp4 is already taken")


@dataclass
class _Pods:
    pending: list[PendingPod] = field(default_factory=list)
    served: list[object] = field(default_factory=list)


def readiness(pods: _Pods, *workers: SimpleNamespace) -> Readiness:
    policy = SimpleNamespace(missing=lambda identities: [])
    placed = [cast(Worker, one) for one in workers or (worker(0, 1),)]
    return Readiness(lambda: "", cast(NodePolicy, policy), cast(Pods, pods), placed, predecessor=None)


def worker(index: int, generation: int | None) -> SimpleNamespace:
    return SimpleNamespace(usable=True, policy_in_force=generation, index=index)


def served() -> object:
    return SimpleNamespace(identity=None)


def test_none_of_the_pods_can_be_served_for_want_of_a_permission() -> None:
    asked = readiness(_Pods([REFUSED, REFUSED]))
    assert asked.unready() == ["none of 2 pods can be served: pod default/web: SO_MARK: Operation not permitted"]


def test_a_pod_that_is_its_own_obstacle_holds_no_rollout() -> None:
    assert readiness(_Pods([TAKEN])).unready() == []


def test_where_others_are_served_one_that_is_forbidden_is_no_reason() -> None:
    assert readiness(_Pods([REFUSED], [served()])).unready() == []


def test_what_was_ready_is_not_taken_back_by_the_next_pod() -> None:
    pods = _Pods([], [served()])
    asked = readiness(pods)
    assert asked.unready() == []
    pods.pending, pods.served = [REFUSED], []
    assert asked.unready() == []


def test_a_policy_is_in_force_with_the_last_worker_that_has_one_and_is_not_taken_back() -> None:
    workers = [worker(0, None), worker(1, 1)]
    asked = readiness(_Pods(), *workers)
    asked.note()
    assert not asked.policy_in_force.is_set()
    workers[0].policy_in_force = 1
    asked.note()
    assert asked.policy_in_force.is_set()
    workers[0].policy_in_force = None
    asked.note()
    assert asked.policy_in_force.is_set()


def test_a_worker_that_died_before_its_first_policy_keeps_none_from_being_in_force() -> None:
    """Its pods are at the others."""
    workers = [worker(0, None), worker(1, 1)]
    asked = readiness(_Pods(), *workers)
    workers[0].usable = False
    asked.note()
    assert asked.policy_in_force.is_set()
