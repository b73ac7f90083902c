"""What the agents of a cluster ask of its API server: measured at one agent, computed for many. `python -m
tests.bench.api_load` prints the tables of docs/scale.md."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.bench import cluster_objects
from tests.bench.cluster_node import PROVED, ClusterNode, cluster_node
from tests.kube.traffic import Count, What

NODES: Final = (100, 300, 1000)
_OWN: Final = 30
"""Pods of the node, that come and go."""
_EVENTS: Final = 200
"""Of each kind."""
_WITHIN_S: Final = 120.0
_QUIET_S: Final = 60.0

_SETTLE_S: Final = 2.0
_HEARS: Final = frozenset({"list", "watch", "get"})
_WORTH_A_LINE: Final = 10_000

Counts = dict[What, Count]


@dataclass(frozen=True, slots=True)
class Assumed:
    """A cluster of `nodes`. Pods and Services grow with it; `pod_changes`: events of the API server in a pod's life;
    `slice_changes`: of EndpointSlices, in a pod's life."""

    nodes: int
    pods_a_node: int = 30
    pod_life_s: float = 24 * 3600.0
    pods_a_service: int = 10
    pod_changes: int = 5
    slice_changes: int = 3
    watch_ends_after_s: float = 450.0
    bookmarks_every_s: float = 60.0

    @property
    def pods(self) -> int:
        return self.nodes * self.pods_a_node

    @property
    def services(self) -> int:
        return self.pods // self.pods_a_service

    @property
    def changes_a_second(self) -> float:
        """Pods that begin."""
        return self.pods / self.pod_life_s


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one agent. Bytes as the server sends them, without TLS and compression. `first_*`: from its start to the last
    first list; `requests_idle_s`: while nothing happens; `own_*`: for each pod of the node that comes and goes."""

    first_requests: int
    pod_bytes: float
    service_bytes: float
    slice_bytes: float
    pod_event_bytes: float
    slice_event_bytes: float
    watches: int
    own_requests: float
    own_received_bytes: float
    other_requests_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """A second, of one agent; and `all_` of them, at the servers. `first_mb`: once, when an agent starts."""

    first_mb: float
    all_first_gb: float
    kb_s: float
    all_mb_s: float
    all_requests_s: float
    relay_mb_s: float


def load_of(assumed: Assumed, measured: Measured) -> Load:
    """Each agent hears of every pod, and of every slice, of the cluster; of its own pods it hears twice, and writes."""
    first = assumed.pods * measured.pod_bytes + assumed.services * (measured.service_bytes + measured.slice_bytes)
    a_life = assumed.pod_changes * measured.pod_event_bytes
    slices = (
        assumed.slice_changes * measured.slice_event_bytes * assumed.pods_a_service / cluster_objects.ENDPOINTS_EACH
    )
    heard_s = assumed.changes_a_second * (a_life + slices)
    own_s = assumed.pods_a_node / assumed.pod_life_s
    requests_s = own_s * measured.own_requests + measured.other_requests_s
    requests_s += measured.watches / assumed.watch_ends_after_s
    return Load(
        first_mb=first / 1e6,
        all_first_gb=first * assumed.nodes / 1e9,
        kb_s=heard_s / 1e3,
        all_mb_s=heard_s * assumed.nodes / 1e6,
        all_requests_s=requests_s * assumed.nodes,
        relay_mb_s=heard_s * max(1.0, assumed.nodes / NODES_A_RELAY) / 1e6,
    )


NODES_A_RELAY: Final = 100
"""A relay is to come: one watch of each kind for so many agents, which it tells."""


class Meter:
    """What the server's counters have grown by since the last look. The first one counts from the server's start."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node
        self._before: Counts = {}

    def look(self) -> Counts:
        time.sleep(_SETTLE_S)
        now = self._node.api.server.traffic.counts()
        before, self._before = self._before, now
        return {what: _less(count, before.get(what, Count())) for what, count in now.items()}


def measure(say: Callable[[str], None]) -> tuple[Measured, Counts]:
    """Raises LabError. Also what was asked from the start until all was known."""
    say("an API server with 10,000 pods, 10,000 Services, 50,000 endpoints")
    with cluster_node(cluster_objects.fill) as node:
        meter = Meter(node)
        say("first lists")
        node.start_agent()
        node.lab.start_proxy(own_objects=False)
        node.lab.wait_ready(timeout_s=_WITHIN_S)
        node.lab.wait("the agent to answer runtimes", node.plugin.socket.exists)
        first = meter.look()
        say(f"{_QUIET_S:g} s of nothing")
        time.sleep(_QUIET_S)
        quiet = meter.look()
        say(f"{_EVENTS} pods elsewhere change, then {_EVENTS} slices")
        for number in range(_EVENTS):
            node.api.put("Pod", _changed(cluster_objects.remote_pod(number)), cluster_objects.namespace(number))
        pods = meter.look()
        for number in range(_EVENTS):
            changed = _changed(cluster_objects.endpoint_slice(number))
            node.api.put("EndpointSlice", changed, cluster_objects.namespace(number))
        slices = meter.look()
        say(f"{_OWN} pods of the node come and go")
        _live_and_die(node)
        own = meter.look()
    return _measured(first, quiet, pods, slices, own), first


def _changed(body: dict[str, Any]) -> dict[str, Any]:
    """What equals what is there already is no event."""
    return {**body, "metadata": {**body["metadata"], "annotations": {"example.com/changed": "yes"}}}


def _live_and_die(node: ClusterNode) -> None:
    members = [node.make(number) for number in range(_OWN)]
    for pod in members:
        node.add(pod)
    node.wait_all({pod.name for pod in members}, PROVED, _WITHIN_S)
    for pod in members:
        node.end(pod)
    node.wait_all(set(), PROVED, _WITHIN_S)


def _measured(first: Counts, quiet: Counts, pods: Counts, slices: Counts, own: Counts) -> Measured:
    writes = [count for what, count in own.items() if what.verb not in _HEARS]
    gets = [count for what, count in own.items() if what.verb == "get"]
    return Measured(
        first_requests=sum(count.requests for count in first.values()),
        pod_bytes=_sent(first, "list", "pods") / cluster_objects.PODS,
        service_bytes=_sent(first, "list", "services") / cluster_objects.SERVICES,
        slice_bytes=_sent(first, "list", "endpointslices") / cluster_objects.SERVICES,
        pod_event_bytes=_sent(pods, "watch", "pods") / _EVENTS,
        slice_event_bytes=_sent(slices, "watch", "endpointslices") / _EVENTS,
        watches=sum(count.requests for what, count in first.items() if what.verb == "watch"),
        own_requests=sum(count.requests for count in (*writes, *gets)) / _OWN,
        own_received_bytes=sum(count.received for count in (*writes, *gets)) / _OWN,
        other_requests_s=sum(count.requests for count in quiet.values()) / (_QUIET_S + _SETTLE_S),
    )


def _sent(counts: Counts, verb: str, plural: str) -> int:
    return sum(
        count.sent for what, count in counts.items() if what.verb == verb and what.resource.split(".")[0] == plural
    )


def _less(count: Count, before: Count) -> Count:
    return Count(count.requests - before.requests, count.received - before.received, count.sent - before.sent)


# ── docs/scale.md ──────────────────────────────────────────────────────────────────────────────────────────────────
def tables(measured: Measured, first: Counts) -> Iterator[str]:
    yield "| request | number | sent to the server, KB | answered, MB |"
    yield "|---|---:|---:|---:|"
    for what, count in sorted(first.items(), key=lambda one: -one[1].sent):
        if count.sent > _WORTH_A_LINE:
            asked_kb, answered_mb = count.received / 1e3, count.sent / 1e6
            yield f"| {what.verb} {what.resource} | {count.requests} | {asked_kb:.1f} | {answered_mb:.2f} |"
    yield ""
    yield "| one agent | |"
    yield "|---|---:|"
    yield f"| requests of its start | {measured.first_requests} |"
    yield f"| a pod in a list, bytes | {measured.pod_bytes:,.0f} |"
    yield f"| a Service, bytes | {measured.service_bytes:,.0f} |"
    yield f"| an EndpointSlice of {cluster_objects.ENDPOINTS_EACH}, bytes | {measured.slice_bytes:,.0f} |"
    yield f"| a pod's change on a watch, bytes | {measured.pod_event_bytes:,.0f} |"
    yield f"| an EndpointSlice's change, bytes | {measured.slice_event_bytes:,.0f} |"
    yield f"| watches | {measured.watches} |"
    yield f"| requests for a pod of the node that comes and goes | {measured.own_requests:.1f} |"
    yield f"| bytes of these to the server | {measured.own_received_bytes:,.0f} |"
    yield f"| requests a minute while nothing happens | {measured.other_requests_s * 60:.1f} |"
    yield ""
    yield "| nodes | pods | first lists, MB an agent | all agents, GB | watched, KB/s an agent | all, MB/s | requests/s, all | with a relay, MB/s |"  # noqa: E501
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for nodes in NODES:
        assumed = Assumed(nodes)
        load = load_of(assumed, measured)
        yield (
            f"| {nodes:,} | {assumed.pods:,} | {load.first_mb:,.1f} | {load.all_first_gb:,.1f} | {load.kb_s:,.2f} "
            f"| {load.all_mb_s:,.2f} | {load.all_requests_s:,.0f} | {load.relay_mb_s:,.3f} |"
        )


def main() -> int:
    measured, first = measure(lambda text: print(text, file=sys.stderr))
    print("\n".join(tables(measured, first)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
