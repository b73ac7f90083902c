"""The annotation headgate.io/workers: how many workers serve a pod, and what becomes of a mistake in it."""

import pytest

from proxy.config.compile import compile_policy
from tests.unit.proxy_config.samples import MESH, compiled, objects


def pod(annotation: str, name: str = "hot") -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations: {{headgate.io/workers: {annotation}}}
status: {{podIP: 10.1.0.9}}
"""


@pytest.mark.parametrize(("annotation", "workers"), [('"2"', 2), ('"64"', 64)])
def test_a_hot_pod_gets_the_workers_it_asks_for(annotation: str, workers: int) -> None:
    policy = compiled(pod(annotation))
    assert policy.hot_pods == {("default", "hot"): workers}
    assert policy.rejections == ()


def test_one_worker_is_nothing_special() -> None:
    assert compiled(pod('"1"'), *MESH).hot_pods == {}


@pytest.mark.parametrize("annotation", ['"0"', '"65"', '"-1"', '"two"', '"2.0"', '" 2"', '""', "2", '"٢"', "[2]"])
def test_a_mistake_is_named_with_key_and_value_and_the_pod_keeps_its_identity_and_one_worker(annotation: str) -> None:
    policy = compiled(pod(annotation))
    assert policy.hot_pods == {}
    assert policy.workloads["10.1.0.9"].pod == "hot"
    (rejection,) = policy.rejections
    assert rejection.object == "Pod default/hot"
    assert rejection.field == "metadata.annotations[headgate.io/workers]"
    assert "is not a number from 1 to 64; one worker serves the pod" in rejection.reason
    assert rejection.reason.isascii()


def test_another_number_is_another_generation_and_leaves_the_workload_the_same_object() -> None:
    first = compiled(pod('"2"'))
    second = compile_policy(objects(pod('"3"')), first)
    assert (second.generation, second.hot_pods) == (first.generation + 1, {("default", "hot"): 3})
    assert second.pods["default", "hot"] is first.pods["default", "hot"]
    assert compile_policy(objects(pod('"3"')), second) is second
