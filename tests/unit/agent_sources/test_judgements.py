"""Each version of a pod is judged once; another version, or another namespace's mark, is judged anew."""

from typing import Any

from agent.kube.watch import Name
from agent.pods.selection import Selection
from agent.sources.judgements import Judgements
from agent.sources.kube_pod import NodePod, node_pod

NAME = Name("default", "web")
ENABLED = (("headgate.io/mesh", "enabled"),)


def _pod(labels: dict[str, str] | None = None, phase: str = "Running", **spec: Any) -> NodePod:
    metadata = {"name": "web", "namespace": "default", "uid": "u-1", "labels": labels or {}}
    status = {"phase": phase, "podIP": "10.0.0.5"}
    return node_pod({"metadata": metadata, "spec": {"nodeName": "node-1", **spec}, "status": status})


def test_the_same_version_is_judged_once() -> None:
    judgements, pod = Judgements(Selection()), _pod(dict(ENABLED))
    first = judgements.of(NAME, pod, ())
    assert (first.never, first.reason) == ("", "")
    assert judgements.of(NAME, pod, ()) is first


def test_another_version_is_judged_anew() -> None:
    judgements = Judgements(Selection())
    assert judgements.of(NAME, _pod(dict(ENABLED)), ()).reason == ""
    assert judgements.of(NAME, _pod(), ()).reason != ""
    assert judgements.of(NAME, _pod(dict(ENABLED), phase="Succeeded"), ()).never == "has finished"
    assert "host" in judgements.of(NAME, _pod(dict(ENABLED), hostNetwork=True), ()).never


def test_the_namespaces_mark_is_judged_anew() -> None:
    judgements, pod = Judgements(Selection()), _pod()
    assert judgements.of(NAME, pod, ()).reason != ""
    assert judgements.of(NAME, pod, ENABLED).reason == ""


def test_what_is_remembered_does_not_grow_with_pods_that_have_gone() -> None:
    judgements = Judgements(Selection())
    for number in range(100):
        name = Name("default", f"web-{number}")
        judgements.of(name, _pod(), ())
        judgements.keep_only({name})
    assert len(judgements._known) <= 2
