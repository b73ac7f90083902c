"""Every pod that is to be in the mesh, and what its agent says of it. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

from agent.check.common import shown, unseen
from agent.check.facts import Cluster, ClusterPod, PodState, Unseen
from agent.check.lines import Level, Line
from agent.pods import sorted_pairs
from agent.pods.selection import OURS, Mark, Selection, left_out, unselectable

_SECTION: Final = "pods"
PENDING: Final = "pods-pending"
_PROVED: Final = "proved"
_PASSING: Final = frozenset({"seen", "located", "planned", "announced", "installed", "pending", "drifted", "leaving"})
"""On the way; who asks again with --wait sees where to."""


def pods(cluster: Cluster) -> Iterator[Line]:
    what = "every selected pod is enrolled, and its redirection proved"
    if isinstance(cluster.pods, Unseen):
        yield unseen(_SECTION, "pods-proved", what, cluster.pods)
        return
    told = {
        (pod.namespace, pod.name): pod
        for agent in cluster.agents
        if not isinstance(agent.told, Unseen)
        for pod in agent.told.pods
    }
    answering = {agent.node for agent in cluster.agents if not isinstance(agent.told, Unseen)}
    wanted = list(_wanted(cluster, cluster.pods))
    unknown = [_name(one) for one in wanted if one.node in answering and _key(one) not in told]
    homeless = [f"{_name(one)} on {one.node}" for one in wanted if one.node and one.node not in answering]
    states = [told[_key(one)] for one in wanted if _key(one) in told]
    lines = [*_failed(what, states), *_passing(what, states), *_unknown(what, unknown), *_homeless(what, homeless)]
    proved = sum(one.state == _PROVED for one in states)
    yield from lines or [Line(_SECTION, "pods-proved", Level.OK, f"{what} ({proved})")]


def selection_of(cluster: Cluster) -> Selection:
    """By the arguments of the agents' DaemonSet."""
    found = () if isinstance(cluster.daemonsets, Unseen) else cluster.daemonsets
    words = [word for one in found if one.namespace == cluster.namespace for word in one.arguments]
    marks = [
        Mark(key, value) for key, _, value in (text.partition("=") for text in _values(words, "--select")) if value
    ]
    excluded = frozenset(_values(words, "--exclude-namespace"))
    usual = Selection()
    return Selection((OURS, *marks), excluded or usual.excluded_namespaces)


def _values(words: Iterable[str], option: str) -> Iterator[str]:
    return (word.removeprefix(f"{option}=") for word in words if word.startswith(f"{option}="))


def _wanted(cluster: Cluster, found: tuple[ClusterPod, ...]) -> Iterator[ClusterPod]:
    selection = selection_of(cluster)
    spaces = () if isinstance(cluster.namespaces, Unseen) else cluster.namespaces
    labels = {one.name: sorted_pairs(one.labels.items()) for one in spaces}
    for one in found:
        candidate = one.pod.candidate
        marks = labels.get(candidate.namespace, ())
        if not one.pod.over and not unselectable(candidate, selection) and not left_out(candidate, marks, selection):
            yield one


def _key(one: ClusterPod) -> tuple[str, str]:
    return one.pod.ref.namespace, one.pod.ref.name


def _name(one: ClusterPod) -> str:
    return "/".join(_key(one))


def _failed(what: str, states: list[PodState]) -> Iterator[Line]:
    failed = [one for one in states if one.state != _PROVED and one.state not in _PASSING]
    if failed:
        told = shown(f"{one.namespace}/{one.name}: {_why(one)}" for one in failed)
        yield Line(
            _SECTION, "pods-proved", Level.FAILED, what, told,
            "headgate why POD, on its node: the first step that fails",
        )  # fmt: skip


def _passing(what: str, states: list[PodState]) -> Iterator[Line]:
    passing = [one for one in states if one.state in _PASSING]
    if passing:
        told = shown(f"{one.namespace}/{one.name}: {_why(one)}" for one in passing)
        yield Line(
            _SECTION, PENDING, Level.WARNING, what, told,
            "try again, or --wait; if it stays so: headgate why POD",
        )  # fmt: skip


def _why(one: PodState) -> str:
    return "; ".join((f"{one.state}{f': {one.reason}' if one.reason else ''}", *one.failed_proofs))


def _unknown(what: str, names: list[str]) -> Iterator[Line]:
    if names:
        yield Line(
            _SECTION, "pods-unknown", Level.FAILED, what, f"their node's agent does not have {shown(names)}",
            "headgate why POD, on its node; one that starts this moment is not known yet",
        )  # fmt: skip


def _homeless(what: str, names: list[str]) -> Iterator[Line]:
    if names:
        yield Line(
            _SECTION, "pods-without-agent", Level.FAILED, what, f"no agent answers for {shown(names)}",
            "see the lines of data plane and agents above",
        )  # fmt: skip
