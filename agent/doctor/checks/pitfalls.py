"""What goes wrong in a mesh that works: as objects, sockets and counters tell. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.declared import Declared, DeclaredPod, External, MutualTls, Probe
from agent.doctor.facts import NODE, Facts, Namespace
from agent.doctor.findings import Finding, Severity
from agent.plan import FlowTuple
from agent.pods import IPAddress
from proxy.api.constants import MARK_MASK, PROXY_MARK, PROXY_PORTS

IDS: Final = {
    "probe-too-early": "a probe that fires before the application listens",
    "dials-address": "a client that dials a pod's address instead of a name",
    "localhost-loop": "a call that leads back to the caller, or to its proxy",
    "external-mutual-tls": "mutual TLS asked of a host outside the mesh",
    "no-timeout": "routes without any time-out",
}
_SHOWN: Final = 3


def check(facts: Facts) -> Iterator[Finding]:
    declared = facts.declared or Declared()
    yield from _probes(facts, declared)
    yield from _dialled(facts, declared)
    yield from _loops(facts, declared)
    for rule in declared.mutual:
        for entry in declared.external:
            if host := _shared_host(rule, entry):
                yield _refused(rule, entry, host)
                break
    for route in declared.endless:
        numbers = ", ".join(str(number) for number in route.rules)
        yield Finding(
            "no-timeout",
            Severity.WARNING,
            route.where,
            f"{len(route.rules)} of {route.of} rules have no time-out (position {numbers})",
            "a server that does not answer holds its callers for ever, and theirs: connections and memory run out "
            "upstream; retries are not bounded either",
            "set http[].timeout (VirtualService) or rules[].timeouts.request (HTTPRoute); 15s is what Envoy itself "
            "would take",
        )


# ── Probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _probes(facts: Facts, declared: Declared) -> Iterator[Finding]:
    seen = {pod.pod.key: pod for pod in facts.pods if pod.pod is not None and pod.listening is not None}
    for pod in declared.pods:
        namespace = seen.get(pod.key)
        if namespace is None:
            continue
        open_ports = {listener.port for listener in namespace.listening or ()}
        for probe in pod.probes:
            if probe.port and not probe.initial_delay_s and probe.port not in open_ports:
                yield _too_early(namespace, probe)


def _too_early(pod: Namespace, probe: Probe) -> Finding:
    restarts = probe.kind == "liveness"
    return Finding(
        "probe-too-early",
        Severity.WARNING if restarts else Severity.INFO,
        pod.where,
        f"the {probe.kind} probe of container {probe.container} asks port {probe.port} at once, and nobody listens "
        "there yet",
        "the kubelet restarts the container before it is up, again and again"
        if restarts
        else "the pod is not ready before its first probe after it listens; its Events warn of failures till then",
        "give the container a startupProbe (it holds the others back), or an initialDelaySeconds as long as its start "
        "takes",
    )


# ── Addresses that are dialled ─────────────────────────────────────────────────────────────────────────────────────
def _dialled(facts: Facts, declared: Declared) -> Iterator[Finding]:
    """A flow to a pod that no headless Service stands before: those are dialled by address by whoever used the name."""
    owners = {address: pod.key for pod in declared.pods for address in pod.addresses}
    owners |= {address: pod.pod.key for pod in facts.pods if pod.pod for address in pod.pod.addresses}
    by_name = {pod.key for pod in declared.pods if _is_headless(pod, declared)}
    for pod in facts.pods:
        own = _addresses(pod)
        found: dict[tuple[IPAddress, int], str] = {}
        for flow in _opened_by_application(pod):
            owner = owners.get(flow.remote)
            if owner is not None and flow.remote not in own and owner not in by_name:
                found[flow.remote, flow.remote_port] = owner
        if found:
            shown = ", ".join(f"{a} port {p} (pod {owner})" for (a, p), owner in list(found.items())[:_SHOWN])
            yield Finding(
                "dials-address",
                Severity.WARNING,
                pod.where,
                f"it is connected to pods by their addresses: {shown}"
                + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""),
                "no Service is meant by an address: no route, split, retry or balancing applies, and the connection "
                "fails when the pod is replaced",
                "let the client use the Service's name; a headless Service where single pods are meant",
            )


def _is_headless(pod: DeclaredPod, declared: Declared) -> bool:
    return any(service.selects(pod) and not service.addresses for service in declared.services)


def _opened_by_application(pod: Namespace) -> Iterator[FlowTuple]:
    """Where the kernel does not tell marks, the proxy's own sockets cannot be told from the application's."""
    ports = {listener.port for listener in pod.listening or ()}
    for flow in pod.flows or ():
        if flow.mark is not None and flow.mark & MARK_MASK != PROXY_MARK and flow.local_port not in ports:
            yield flow


def _addresses(pod: Namespace) -> frozenset[IPAddress]:
    held = frozenset(address for one in pod.interfaces or () for address in one.addresses)
    return held if pod.pod is None else held | frozenset(pod.pod.addresses)


# ── Loops ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _loops(facts: Facts, declared: Declared) -> Iterator[Finding]:
    if facts.self_calls:
        yield Finding(
            "localhost-loop",
            Severity.WARNING,
            NODE,
            f"the proxy has refused {facts.self_calls} calls of its own ports (headgate_self_calls)",
            "something in a pod calls a proxy's listener itself, by name of a Service, by address or by localhost: it "
            "would be led to itself for ever (`headgate rules verify` makes some such calls, too)",
            "see the access log for the caller; no Service port, upstream or readiness check may name "
            f"{', '.join(str(port) for port in sorted(PROXY_PORTS))}",
        )
    declared_pods = {pod.key: pod for pod in declared.pods}
    for pod in facts.pods:
        yield from _loop(pod, declared, declared_pods.get(pod.pod.key) if pod.pod else None)


def _loop(pod: Namespace, declared: Declared, known: DeclaredPod | None) -> Iterator[Finding]:
    own = _addresses(pod)
    vips = {a: service for service in declared.services if known and service.selects(known) for a in service.addresses}
    to_proxy: set[int] = set()
    to_itself: set[str] = set()
    for flow in _opened_by_application(pod):
        if flow.remote_port in PROXY_PORTS and (flow.remote.is_loopback or flow.remote in own):
            to_proxy.add(flow.remote_port)
        elif (service := vips.get(flow.remote)) is not None:
            to_itself.add(f"{service.namespace}/{service.name}")
    if to_proxy:
        ports = ", ".join(str(port) for port in sorted(to_proxy))
        yield Finding(
            "localhost-loop",
            Severity.WARNING,
            pod.where,
            f"the application is connected to its own proxy's port {ports}",
            "a listener of the proxy takes what rules lead there: who calls it has no destination but the proxy itself",
            "let the application call the Service by name, and let rules lead it through the proxy",
        )
    if to_itself:
        yield Finding(
            "localhost-loop",
            Severity.INFO,
            pod.where,
            f"the application calls a Service that it is itself behind: {', '.join(sorted(to_itself))}",
            "each such call passes the proxy out and in again, and may be answered by another pod",
            "where its own pod is meant, call localhost",
        )


# ── Mutual TLS with strangers ──────────────────────────────────────────────────────────────────────────────────────
def _shared_host(rule: MutualTls, entry: External) -> str:
    return next((host for host in entry.hosts if _meets(rule.host, host) or _meets(host, rule.host)), "")


def _meets(pattern: str, host: str) -> bool:
    return pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _refused(rule: MutualTls, entry: External, host: str) -> Finding:
    own = rule.mode == "ISTIO_MUTUAL"
    return Finding(
        "external-mutual-tls",
        Severity.SERIOUS if own else Severity.WARNING,
        rule.where,
        f"{rule.field} is {rule.mode}, and {entry.where} says that {host} is outside the mesh",
        "the host gets a certificate of the mesh, which it does not know: it ends each handshake"
        if own
        else "the host ends each handshake, unless it asked for the client certificate that is named here",
        "mode: SIMPLE (TLS as any client), or DISABLE where the application itself speaks TLS",
    )
