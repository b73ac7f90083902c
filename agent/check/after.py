"""Whether headgate does its work, on every node and for every pod. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.check.common import api_server, shown, unseen
from agent.check.conflicts import conflicts
from agent.check.facts import Agent, AgentStatus, Cluster, DaemonSet, Unseen, Webhook
from agent.check.lines import Level, Line
from agent.check.selected import pods

_DATA_PLANE: Final = "data-plane"
_AGENTS: Final = "agents"
_WEBHOOK: Final = "webhook"
_PROGRAMS: Final = ("headgate-agent", "headgate-proxy")
_CNI_PROBLEM: Final = "CNI: "
_CNI_SET: Final = "HEADGATE_CNI_CONF_DIR"
_BUNDLE_LEFT_S: Final = 45 * 86_400.0
"""Half of what an authority has left when it is replaced (agent.webhook.rotation): then nobody replaces it."""


def after(cluster: Cluster) -> tuple[Line, ...]:
    """In the order in which they are shown. Without an API server nothing else is said."""
    lines = list(api_server(cluster))
    if isinstance(cluster.version, Unseen):
        return tuple(lines)
    lines += _daemonsets(cluster)
    lines += _nodes(cluster)
    if cluster.agents:
        lines += (_answering(cluster.agents), _proxies(cluster.agents), *_chain(cluster), _problems(cluster.agents))
        lines += (_versions(cluster), *pods(cluster))
    return (*lines, *_webhook(cluster), *conflicts(cluster))


def _daemonsets(cluster: Cluster) -> Iterator[Line]:
    for name in _PROGRAMS:
        what = f"{name} is ready on every node that it is for"
        if isinstance(cluster.daemonsets, Unseen):
            yield unseen(_DATA_PLANE, name, what, cluster.daemonsets)
            continue
        found = _daemonset(cluster, name)
        if found is None:
            yield Line(
                _DATA_PLANE, name, Level.FAILED, what, f"there is no DaemonSet {cluster.namespace}/{name}",
                "headgate install | kubectl apply -f -; --namespace, where it is installed in another one",
            )  # fmt: skip
        elif found.ready < found.desired or found.updated < found.desired:
            yield Line(
                _DATA_PLANE, name, Level.FAILED, what,
                f"{found.ready} of {found.desired} ready, {found.updated} of this version{_not_ready(cluster, name)}",
                f"kubectl -n {cluster.namespace} rollout status daemonset/{name}; kubectl -n {cluster.namespace} "
                "describe pod",
            )  # fmt: skip
        else:
            yield Line(_DATA_PLANE, name, Level.OK, what)


def _daemonset(cluster: Cluster, name: str) -> DaemonSet | None:
    assert not isinstance(cluster.daemonsets, Unseen)
    wanted = (cluster.namespace, name)
    return next((one for one in cluster.daemonsets if (one.namespace, one.name) == wanted), None)


def _not_ready(cluster: Cluster, name: str) -> str:
    if isinstance(cluster.own, Unseen):
        return ""
    component = name.removeprefix("headgate-")
    found = [one for one in cluster.own if one.component == component and not one.ready]
    told = shown(f"{one.name} on {one.node or 'no node'}: {one.waiting or 'not ready'}" for one in found)
    return f": {told}" if found else ""


def _nodes(cluster: Cluster) -> Iterator[Line]:
    what = "every Linux node has an agent and a proxy"
    if isinstance(cluster.nodes, Unseen):
        yield unseen(_DATA_PLANE, "nodes-without", what, cluster.nodes)
        return
    if isinstance(cluster.own, Unseen):
        yield unseen(_DATA_PLANE, "nodes-without", what, cluster.own)
        return
    lacking = []
    for node in cluster.nodes:
        there = {one.component for one in cluster.own if one.node == node.name}
        if node.os == "linux" and (gone := sorted({"agent", "proxy"} - there)):
            lacking.append(f"{node.name} ({' and '.join(gone)})")
    if lacking:
        yield Line(
            _DATA_PLANE, "nodes-without", Level.FAILED, what, f"lacking: {shown(lacking)}",
            f"kubectl -n {cluster.namespace} describe daemonset: what keeps them away stands there",
        )  # fmt: skip
    else:
        yield Line(_DATA_PLANE, "nodes-without", Level.OK, what)


# ── What agents say ────────────────────────────────────────────────────────────────────────────────────────────────
def _told(agents: tuple[Agent, ...]) -> list[tuple[str, AgentStatus]]:
    return [(one.node, one.told) for one in agents if not isinstance(one.told, Unseen)]


def _answering(agents: tuple[Agent, ...]) -> Line:
    what = "every agent answers"
    silent = [f"{one.pod} on {one.node}: {one.told.reason}" for one in agents if isinstance(one.told, Unseen)]
    if not silent:
        return Line(_AGENTS, "agent-answers", Level.OK, what)
    return Line(
        _AGENTS, "agent-answers", Level.FAILED, what, shown(silent),
        "kubectl logs of that pod; you need the right get pods/proxy, and the API server a way to "
        "port 15014 of pods",
    )  # fmt: skip


def _proxies(agents: tuple[Agent, ...]) -> Line:
    what = "every agent has a proxy"
    without = [node for node, told in _told(agents) if not told.proxy_connected]
    if not without:
        return Line(_AGENTS, "agent-proxy", Level.OK, what)
    return Line(
        _AGENTS, "agent-proxy", Level.FAILED, what, f"none is connected on {shown(without)}",
        "logs of the proxy there; until it comes, pods of that node do not start, and connections are refused",
    )  # fmt: skip


def _chain(cluster: Cluster) -> Iterator[Line]:
    what = "our CNI plugin is in the chain of every node"
    found = None if isinstance(cluster.daemonsets, Unseen) else _daemonset(cluster, "headgate-agent")
    if found is not None and _CNI_SET not in found.variables:
        yield Line(
            _AGENTS, "cni-chain", Level.WARNING, what, "agents are set to keep none (as --overlay openshift has it)",
            "none needed where that is meant: pods are steered a moment after they have started",
        )  # fmt: skip
        return
    problems = [
        f"{node}: {problem.removeprefix(_CNI_PROBLEM)}"
        for node, told in _told(cluster.agents)
        for problem in told.problems
        if problem.startswith(_CNI_PROBLEM)
    ]
    if problems:
        yield Line(
            _AGENTS, "cni-chain", Level.FAILED, what, shown(problems),
            "headgate doctor on that node; pods that start there are steered a moment after they have started",
        )  # fmt: skip
    else:
        yield Line(_AGENTS, "cni-chain", Level.OK, what)


def _problems(agents: tuple[Agent, ...]) -> Line:
    what = "no agent reports a problem"
    nodes: dict[str, list[str]] = {}
    for node, told in _told(agents):
        for problem in told.problems:
            if not problem.startswith(_CNI_PROBLEM):
                nodes.setdefault(problem, []).append(node)
    if not nodes:
        return Line(_AGENTS, "agent-problems", Level.OK, what)
    return Line(
        _AGENTS, "agent-problems", Level.WARNING, what,
        "; ".join(f"{problem} (on {shown(where)})" for problem, where in nodes.items()),
        "headgate pods on that node says the same; what may not be read or written names the missing rule",
    )  # fmt: skip


def _versions(cluster: Cluster) -> Line:
    what = "agents are of one version, and this command's"
    found = sorted({told.version for _, told in _told(cluster.agents)})
    if found in ([], [cluster.client_version]):
        return Line(_AGENTS, "version-skew", Level.OK, what)
    return Line(
        _AGENTS, "version-skew", Level.WARNING, what, f"agents: {', '.join(found)}; this one: {cluster.client_version}",
        "apply what this version's `headgate install` prints, or use the headgate that was installed",
    )  # fmt: skip


# ── Init mode's webhook ────────────────────────────────────────────────────────────────────────────────────────────
def _webhook(cluster: Cluster) -> Iterator[Line]:
    found = cluster.webhook
    if isinstance(found, Unseen):
        yield unseen(_WEBHOOK, "webhook", "the webhook is ready, if it is installed", found)
    elif found is not None:
        yield _replicas(cluster, found)
        yield _bundle(cluster, found)


def _replicas(cluster: Cluster, webhook: Webhook) -> Line:
    what = "the webhook answers"
    if webhook.ready:
        return Line(_WEBHOOK, "webhook", Level.OK, what)
    gone = "its Deployment is gone" if webhook.ready is None else "none of its replicas is ready"
    closed = "Fail" in webhook.failure_policies
    return Line(
        _WEBHOOK, "webhook", Level.FAILED, what,
        f"{gone}{': no pod that it selects can be created' if closed else ''}",
        f"kubectl -n {cluster.namespace} describe deployment headgate-webhook; the way out meanwhile: kubectl delete "
        "mutatingwebhookconfiguration headgate-webhook",
    )  # fmt: skip


def _bundle(cluster: Cluster, webhook: Webhook) -> Line:
    what = "API servers believe the webhook's certificates, and will"
    ends = [end_s for end_s in webhook.authorities_end_s if end_s is not None]
    remedy = f"kubectl -n {cluster.namespace} logs deployment/headgate-webhook: it renews them by itself"
    if len(ends) < len(webhook.authorities_end_s) or not ends:
        why = "a caBundle is missing, or holds no certificate"
        return Line(_WEBHOOK, "webhook-certificates", Level.FAILED, what, why, remedy)
    left_s = min(ends) - cluster.now_s
    if left_s <= 0:
        return Line(_WEBHOOK, "webhook-certificates", Level.FAILED, what, "they have expired", remedy)
    if left_s < _BUNDLE_LEFT_S:
        why = f"they expire in {left_s / 86_400:.0f} days, and nobody has renewed them"
        return Line(_WEBHOOK, "webhook-certificates", Level.WARNING, what, why, remedy)
    return Line(_WEBHOOK, "webhook-certificates", Level.OK, what)
