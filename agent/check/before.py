"""Whether headgate can be installed. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.check.common import api_server, shown, unseen
from agent.check.conflicts import conflicts
from agent.check.facts import Cluster, Unseen
from agent.check.lines import Level, Line
from agent.inject.pod_security import ENFORCED, refusal
from agent.sources.kinds import KINDS

_INSTALL: Final = "installation"
_NODES: Final = "nodes"
_KINDS: Final = "policy"
_CORE: Final = frozenset({"", "discovery.k8s.io"})


def before(cluster: Cluster) -> tuple[Line, ...]:
    """In the order in which they are shown. Without an API server nothing else is said."""
    lines = list(api_server(cluster))
    if isinstance(cluster.version, Unseen):
        return tuple(lines)
    return (
        *lines, *_permissions(cluster), _free(cluster), *_linux(cluster), *_groups(cluster), *conflicts(cluster)
    )  # fmt: skip


def _permissions(cluster: Cluster) -> Iterator[Line]:
    what = "may make all that is installed"
    if isinstance(cluster.permissions, Unseen):
        yield unseen(_INSTALL, "permissions", what, cluster.permissions)
        return
    missing = [
        f"{one.verb} {one.resource}{f'.{one.group}' if one.group else ''}"
        for one in cluster.permissions
        if not one.allowed
    ]
    if missing:
        yield Line(
            _INSTALL, "permissions", Level.FAILED, what, f"you may not {shown(missing)}",
            "apply the manifests as a cluster administrator: kubectl auth can-i '*' '*' --all-namespaces",
        )  # fmt: skip
    else:
        yield Line(_INSTALL, "permissions", Level.OK, what)


def _free(cluster: Cluster) -> Line:
    """The manifests label a namespace of their own; one of an operator's may be there already."""
    what = f"namespace {cluster.namespace} takes pods with rights on their node"
    if isinstance(cluster.namespaces, Unseen):
        return unseen(_INSTALL, "namespace", what, cluster.namespaces)
    found = next((one for one in cluster.namespaces if one.name == cluster.namespace), None)
    level = "" if found is None else found.labels.get(ENFORCED, "")
    if refusal("", level):
        return Line(
            _INSTALL, "namespace", Level.WARNING, what, f"it is there, and {ENFORCED}={level} refuses them",
            "the manifests set the label to privileged: see that nothing else is in it, or choose another --namespace",
        )  # fmt: skip
    return Line(_INSTALL, "namespace", Level.OK, what)


def _linux(cluster: Cluster) -> Iterator[Line]:
    what = "Linux nodes are there, and ready"
    if isinstance(cluster.nodes, Unseen):
        yield unseen(_NODES, "nodes", what, cluster.nodes)
        return
    linux = [one for one in cluster.nodes if one.os == "linux"]
    unready = [one.name for one in linux if not one.ready]
    if not linux:
        yield Line(
            _NODES, "nodes", Level.FAILED, what, f"none of {len(cluster.nodes)} nodes runs Linux",
            "add Linux nodes: redirect rules and proxies are Linux's",
        )  # fmt: skip
    elif unready:
        yield Line(
            _NODES, "nodes", Level.WARNING, what, f"not ready: {shown(unready)}",
            "kubectl describe node; agents come up there when they are",
        )  # fmt: skip
    else:
        yield Line(_NODES, "nodes", Level.OK, what)


def _groups(cluster: Cluster) -> Iterator[Line]:
    """Worth knowing only: what comes later is taken up without a restart."""
    what = "knows which policy there can be"
    if isinstance(cluster.groups, Unseen):
        yield unseen(_KINDS, "policy-kinds", what, cluster.groups)
        return
    groups = sorted({kind.group for kind in KINDS} - _CORE)
    there = [group for group in groups if group in cluster.groups]
    absent = [group for group in groups if group not in cluster.groups]
    told = f"definitions there: {', '.join(there) or 'none'}"
    rest = f"; not there: {', '.join(absent)}" if absent else ""
    yield Line(_KINDS, "policy-kinds", Level.OK, f"{told}{rest}")
