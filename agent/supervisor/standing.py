"""What only the agent knows when somebody asks why a pod is not in the mesh; read by agent.why.hearing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agent.kernel.held import Found
from agent.kernel.netns import host_netns_id
from agent.plan import FlowKey, PlanSettings
from agent.pods import MESH_LABEL
from agent.reconcile import Life
from agent.settings import AgentSettings
from agent.sources.netns import NETNS_DIRECTORY
from agent.supervisor.reports import PodFacts
from agent.supervisor.views import plan_view, pod_view
from agent.why.facts import Objects, SourceKind

_API_SERVER: Final = "the API server"
_NAMED: Final = 5
"""Connections outside the mesh that are told one by one; there may be thousands."""


class Told(Protocol):
    """A source of pods, or of objects."""

    @property
    def problems(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Of the agent as a whole. `kind`: a value of agent.why.facts.SourceKind, `place`: where its pods come from.
    `objects`: of the source of Kubernetes objects, where there is one; `complete`: proxies are told of all."""

    kind: SourceKind
    place: str
    problems: tuple[str, ...]
    proxy_connected: bool
    backend: str
    objects: Objects | None


def source_of(settings: AgentSettings) -> tuple[SourceKind, str]:
    if settings.pods_file is not None:
        return SourceKind.FILE, str(settings.pods_file)
    if settings.cluster is not None:
        return SourceKind.CLUSTER, f"{_API_SERVER}, for node {settings.cluster.node_name}"
    return SourceKind.NAMES, str(NETNS_DIRECTORY)


def objects_of(settings: AgentSettings, source: Told | None, complete: bool) -> Objects | None:
    place = _API_SERVER if settings.objects_dir is None else str(settings.objects_dir)
    return None if source is None else Objects(place, complete, source.problems)


@dataclass(frozen=True, slots=True)
class Known:
    """Whom the admin socket asks; all but the first by a pod's namespace and name.

    `own_object`: whether proxies are told of its Pod object, None where they are told of no objects. Of a pod that no
    source names None: `listed_at`, the path at which its network namespace is looked for, there or not; `left_out`, why
    its source does not select it.
    """

    standing: Callable[[], Standing]
    own_object: Callable[[str, str], bool | None]
    listed_at: Callable[[str, str], str | None]
    left_out: Callable[[str, str], str | None]


def agent_view(standing: Standing, pods: Iterable[Life]) -> dict[str, Any]:
    objects = standing.objects
    return {
        "source": {
            "place": standing.place,
            "kind": standing.kind.value,
            "problems": list(standing.problems),
            "pods": [str(life.pod) for life in pods],
        },
        "proxy_connected": standing.proxy_connected,
        "backend": standing.backend,
        "netns_id": str(host_netns_id()),
        "objects": None
        if objects is None
        else {"place": objects.place, "complete": objects.complete, "problems": list(objects.problems)},
    }


def why_view(
    life: Life, facts: PodFacts, settings: PlanSettings, found: Found | str, object_known: bool | None
) -> dict[str, Any]:
    """`found`: beside the plan, or why it was not compared. `object_known` None: the agent tells of no objects."""
    plan = plan_view(life, settings)
    return {
        **pod_view(life, facts),
        "left_out": life.pod.left_out,
        "mesh_label": life.pod.label(MESH_LABEL),
        "installed": life.installed,
        "drained": life.drained,
        "object_known": object_known,
        "wishes": {name: plan[name] for name in ("error", "origins", "noted")},
        "difference": {"unread": found}
        if isinstance(found, str)
        else {"changes": list(found.changes), "foreign": list(found.foreign)},
        "outside": _named(facts.unsteered.flows),
    }


def _named(flows: Iterable[FlowKey]) -> list[str]:
    return [
        f"{_end(local, local_port)} - {_end(remote, remote_port)}"
        for local, local_port, remote, remote_port in sorted(flows, key=str)[:_NAMED]
    ]


def _end(address: object, port: int) -> str:
    text = str(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
