"""What applications have that they should not: the proxy's ports, capabilities. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import Facts, Listening, Namespace, Process
from agent.doctor.findings import Finding, Severity
from agent.ruleset.inventory import HEADGATE
from proxy.api.constants import DNS_PORT

IDS: Final = {
    "proxy-port-taken": "an application bound to a port of the proxy's",
    "probes": "kubelet's probes, as the agent has tried their way",
    "net-raw": "enrolled pods with CAP_NET_RAW",
    "net-admin": "enrolled pods with CAP_NET_ADMIN",
}
_NET_ADMIN, _NET_RAW = 12, 13  # linux/capability.h
_SHOWN: Final = 3
_OUT_OF_THE_MESH: Final = frozenset({"disabled", "gone"})


def check(facts: Facts) -> Iterator[Finding]:
    sidecars = (
        frozenset(one.pid for one in facts.descriptors.processes if one.in_pod) if facts.descriptors else frozenset()
    )
    for pod in facts.pods:
        # In a pod of the agent's only the node's proxy may listen, which marks its sockets: a name proves nothing.
        yield from _taken(pod, sidecars if pod.pod is None else frozenset())
        yield from _cut_off(pod)
        if pod.is_enrolled and pod.processes is not None:
            yield from _may(pod, pod.processes)


# ── Probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _cut_off(pod: Namespace) -> Iterator[Finding]:
    for path in pod.pod.cut_off if pod.pod is not None and pod.is_enrolled else ():
        yield Finding(
            "probes",
            Severity.SERIOUS,
            pod.where,
            path.reason,
            "kubelet ends containers whose liveness probe fails, and a pod that is not ready is in no Service",
            path.remedy,
        )


# ── Ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _taken(pod: Namespace, sidecars: frozenset[int]) -> Iterator[Finding]:
    if pod.pod is not None and pod.pod.state in _OUT_OF_THE_MESH:
        return
    applications: dict[int, Listening] = {}
    for listener in pod.listening or ():
        if listener.is_on_our_port and not listener.is_the_proxys and listener.pid not in sidecars:
            applications.setdefault(listener.port, listener)
    for port, listener in sorted(applications.items()):
        if _is_led_to(pod, port):
            continue  # a sidecar's own: its mesh's rules lead there
        who = f"pid {listener.pid} ({listener.command})" if listener.pid else "a process that is not to be seen"
        yield Finding(
            "proxy-port-taken",
            Severity.WARNING if port == DNS_PORT else Severity.SERIOUS,
            pod.where,
            f"{who} listens on {listener.address} port {port}, which is the proxy's",
            "the proxy cannot listen there: the pod is not enrolled, and works on outside the mesh"
            if port != DNS_PORT
            else "the pod's DNS queries cannot be answered by the proxy",
            f"let the application listen on another port than {port}, or label the pod headgate.io/mesh: disabled",
        )


def _is_led_to(pod: Namespace, port: int) -> bool:
    """By rules of another mesh; ours stand in no pod whose port an application had first."""
    if pod.rules is None:
        return False
    endings = (f"redirect to :{port}", f"--to-ports {port}", f"--on-port {port}", f":{port}")
    return any(
        rule.whose != HEADGATE and any(ending in rule.text for ending in endings)
        for table in pod.rules.inventory.tables
        for _, rule in table.rules
    )


# ── Capabilities ───────────────────────────────────────────────────────────────────────────────────────────────────
def _may(pod: Namespace, processes: tuple[Process, ...]) -> Iterator[Finding]:
    raw = [process for process in processes if process.effective >> _NET_RAW & 1]
    admin = [process for process in processes if process.effective >> _NET_ADMIN & 1]
    latent = [process for process in processes if process.bounding >> _NET_RAW & 1 and process not in raw]
    drop = "securityContext.capabilities.drop: [NET_RAW] (or ALL) on the pod's containers"
    if raw:
        yield Finding(
            "net-raw",
            Severity.WARNING,
            pod.where,
            f"{_named(raw)} has CAP_NET_RAW",
            "by raw and packet sockets, and by setting marks, it passes the mesh by: no redirection, no policy",
            drop,
        )
    elif latent:
        yield Finding(
            "net-raw",
            Severity.INFO,
            pod.where,
            f"{_named(latent)} has CAP_NET_RAW in its bounding set only",
            "a file with that capability, or with set-user-ID, gets it (ping often is one), and passes the mesh by",
            drop,
        )
    if admin:
        yield Finding(
            "net-admin",
            Severity.WARNING,
            pod.where,
            f"{_named(admin)} has CAP_NET_ADMIN",
            "it may change the pod's rules and routes, and set any mark; the agent heals within two seconds, what "
            "passes meanwhile is counted as drift",
            "securityContext.capabilities.drop: [NET_ADMIN] (or ALL), and no privileged: true",
        )


def _named(processes: list[Process]) -> str:
    shown = ", ".join(f"pid {process.pid} ({process.command})" for process in processes[:_SHOWN])
    return shown if len(processes) <= _SHOWN else f"{shown} and {len(processes) - _SHOWN} more"
