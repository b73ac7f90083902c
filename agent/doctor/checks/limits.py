"""Tables that fill: conntrack, descriptors. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import NODE, Descriptors, Facts, Namespace, Tracking
from agent.doctor.findings import Finding, Severity
from proxy.api.descriptor_needs import AGENT, SUPERVISOR, WORKER

IDS: Final = {
    "conntrack": "how full each namespace's conntrack table is, and what it has dropped",
    "descriptors": "RLIMIT_NOFILE of agent and proxy, and the node's file table",
}
_NEARLY_FULL: Final = 0.95
"""The kernel itself drops closing connections from here on (nf_conntrack_core.c: nf_conntrack_max95)."""
_FILLING: Final = 0.75
_NEEDS: Final = {"agent": AGENT, "proxy": SUPERVISOR, "worker": WORKER}
_ROLES: Final = {"agent": "agent", "proxy": "proxy", "worker": "proxy's worker"}
_DESCRIPTORS_SERIOUS: Final = 0.95
_DESCRIPTORS_FILLING: Final = 0.8


def check(facts: Facts) -> Iterator[Finding]:
    for namespace in facts.namespaces:
        if namespace.tracking is not None:
            yield from _conntrack(namespace, namespace.tracking)
    if facts.descriptors is not None:
        yield from _file_table(facts.descriptors)
        yield from _processes(facts.descriptors, facts.pods)


def _conntrack(namespace: Namespace, table: Tracking) -> Iterator[Finding]:
    share = table.entries / table.limit if table.limit else 0.0
    lost = f"; {table.dropped} packets dropped, {table.evicted} entries evicted so far" if table.dropped else ""
    if share >= _FILLING:
        yield Finding(
            "conntrack",
            Severity.SERIOUS if share >= _NEARLY_FULL else Severity.WARNING,
            namespace.where,
            f"{table.entries} of {table.limit} conntrack entries are taken ({share:.0%}){lost}",
            "when it is full new connections are dropped, and entries of closing ones are evicted: a steered "
            "connection that is forgotten is cut (its bytes would leave in clear)",
            "sysctl -w net.netfilter.nf_conntrack_max=… on the node (each namespace has that many), and look who opens "
            "so many: headgate conn, conntrack -L",
        )
    elif table.dropped:
        yield Finding(
            "conntrack",
            Severity.WARNING,
            namespace.where,
            f"conntrack has dropped {table.dropped} packets and evicted {table.evicted} entries so far, "
            f"{table.entries} of {table.limit} are taken now",
            "the table was full at some time, or connections of one tuple met: new ones failed then",
            "watch it (conntrack -S; headgate_conntrack metrics), and raise net.netfilter.nf_conntrack_max on the node",
        )


def _file_table(descriptors: Descriptors) -> Iterator[Finding]:
    share = descriptors.allocated / descriptors.maximum if descriptors.maximum else 0.0
    if share >= _DESCRIPTORS_FILLING:
        yield Finding(
            "descriptors",
            Severity.SERIOUS if share >= _DESCRIPTORS_SERIOUS else Severity.WARNING,
            NODE,
            f"{descriptors.allocated} of the node's {descriptors.maximum} open files are taken ({share:.0%})",
            "when there are none left, every process of the node fails to open files and sockets",
            "sysctl -w fs.file-max=…, and look who holds so many: ls /proc/*/fd",
        )


def _processes(descriptors: Descriptors, pods: tuple[Namespace, ...]) -> Iterator[Finding]:
    sockets = sum(pod.sockets for pod in pods)
    for process in descriptors.processes:
        if process.in_pod:  # its limit is its own business
            continue
        # A worker may come to serve every pod: a dead one's pods are the others' at once. Only it has their sockets.
        needed = _NEEDS[process.role].of(len(pods))
        needed, having = (needed + sockets, f" and {sockets} sockets") if process.role == "worker" else (needed, "")
        share, full = max(process.open, needed) / process.limit, process.open / process.limit
        if share >= _DESCRIPTORS_FILLING:
            yield Finding(
                "descriptors",
                Severity.SERIOUS if full >= _DESCRIPTORS_SERIOUS else Severity.WARNING,
                NODE,
                f"the {_ROLES[process.role]} (pid {process.pid}) may open {process.limit} files and has {process.open};"
                f" for {len(pods)} pods{having} it reckons with {needed}",
                "connections that find no descriptor are refused, and new pods are not served (istio #56888, ztunnel "
                "#1585: at 110 to 330 pods)",
                "raise its limit: LimitNOFILE= of the container runtime, ulimit -n, or prlimit --nofile at once",
            )
