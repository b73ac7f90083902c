"""The classic pitfalls of a mesh, from objects as people write them."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.doctor.declared import Declared, declared
from agent.doctor.facts import Facts, Listening
from agent.doctor.findings import Severity
from agent.plan import FlowTuple
from agent.sources.manifests import objects_in
from tests.unit.agent.doctor.nodes import ADDRESS4, HEALTHY, OTHER4, POD, found, the_one

SERIOUS, WARNING, INFO = Severity.SERIOUS, Severity.WARNING, Severity.INFO


def said(text: str) -> Declared:
    return declared(objects_in(text))


def facts(text: str, flows: Iterable[FlowTuple] = (), ports: tuple[int, ...] = (8080,)) -> Facts:
    listening = tuple(Listening(ip_address("0.0.0.0"), port, 0) for port in ports)
    return replace(HEALTHY, pods=(replace(POD, flows=tuple(flows), listening=listening),), declared=said(text))


def flow(remote: str, port: int, *, mark: int | None = 0, local_port: int = 40000) -> FlowTuple:
    return FlowTuple(ADDRESS4, local_port, ip_address(remote), port, mark, 1000)


# ── Probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def pod_with(probe: str) -> str:
    return f"""\
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: default, labels: {{app: web}}}}
spec:
  containers:
  - name: app
    ports: [{{name: http, containerPort: 8080}}]
    {probe}
"""


@pytest.mark.parametrize(
    ("probe", "severity"),
    [
        ("livenessProbe: {httpGet: {port: http}}", WARNING),
        ("livenessProbe: {tcpSocket: {port: 8080}}", WARNING),
        ("readinessProbe: {grpc: {port: 8080}}", INFO),
    ],
)
def test_a_probe_that_fires_before_the_application_listens(probe: str, severity: Severity) -> None:
    finding = the_one(facts(pod_with(probe), ports=(9,)))
    assert (finding.id, finding.severity) == ("probe-too-early", severity) and "port 8080" in finding.what
    assert found(facts(pod_with(probe), ports=(8080,))) == []


@pytest.mark.parametrize(
    "probe",
    [
        "livenessProbe: {httpGet: {port: 8080}, initialDelaySeconds: 5}",
        "livenessProbe: {httpGet: {port: 8080}}\n    startupProbe: {httpGet: {port: 8080}}",
        'livenessProbe: {exec: {command: ["true"]}}',
        "livenessProbe: {httpGet: {port: unknown}}",
        "livenessProbe: [1]",
    ],
)
def test_a_probe_that_waits_or_asks_no_port_is_well(probe: str) -> None:
    assert found(facts(pod_with(probe), ports=(9,))) == []


# ── Addresses ──────────────────────────────────────────────────────────────────────────────────────────────────────
OTHER = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: db, namespace: data, labels: {{app: db}}}}
status: {{podIP: {OTHER4}, podIPs: [{{ip: {OTHER4}}}]}}
---
"""
HEADLESS = """\
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: None, selector: {app: db}}
"""
SERVICE = HEADLESS.replace("None", "10.96.0.7")


def test_a_client_that_dials_a_pods_address_is_told() -> None:
    finding = the_one(facts(OTHER + SERVICE, [flow(str(OTHER4), 5432)]))
    assert (finding.id, finding.severity, finding.where) == ("dials-address", WARNING, "pod default/web")
    assert f"{OTHER4} port 5432 (pod data/db)" in finding.what


@pytest.mark.parametrize(
    "one",
    [
        flow(str(OTHER4), 5432, mark=0x539),  # the proxy's, to an endpoint it chose
        flow(str(OTHER4), 5432, mark=None),  # nobody knows whose
        flow(str(OTHER4), 40000, local_port=8080),  # a connection that came in
        flow("10.96.0.7", 5432),
        flow("198.51.100.7", 443),
        flow(str(ADDRESS4), 8080),
    ],
)
def test_other_connections_are_well(one: FlowTuple) -> None:
    assert found(facts(OTHER + SERVICE, [one])) == []


def test_a_headless_service_is_dialled_by_address_by_whoever_uses_its_name() -> None:
    assert found(facts(OTHER + HEADLESS, [flow(str(OTHER4), 5432)])) == []


# ── Loops ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_calls_of_the_proxys_own_ports_that_it_refused_are_told() -> None:
    finding = the_one(replace(HEALTHY, self_calls=12))
    assert (finding.id, finding.severity, finding.where) == ("localhost-loop", WARNING, "node") and "12" in finding.what


@pytest.mark.parametrize("address", ["127.0.0.1", str(ADDRESS4)])
def test_b32_an_application_connected_to_its_own_proxy_is_told(address: str) -> None:
    finding = the_one(facts("", [flow(address, 15001)]))
    assert (finding.id, finding.severity) == ("localhost-loop", WARNING) and "port 15001" in finding.what


def test_b6_an_application_that_calls_itself_through_its_service_is_told() -> None:
    own = (
        pod_with("")
        + "---\n"
        + HEADLESS.replace("None", "10.96.0.9").replace("namespace: data", "namespace: default").replace("db", "web")
    )
    finding = the_one(facts(own, [flow("10.96.0.9", 80)]))
    assert (finding.id, finding.severity) == ("localhost-loop", INFO) and "default/web" in finding.what


# ── Mutual TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bank}
spec: {hosts: ["*.bank.example", pay.example], location: MESH_EXTERNAL}
---
"""


def rule(host: str, policy: str) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: tls, namespace: shop}}
spec:
  host: "{host}"
  {policy}
"""


@pytest.mark.parametrize(
    ("host", "policy", "severity", "field"),
    [
        ("pay.example", "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}", SERIOUS, "spec.trafficPolicy.tls.mode"),
        ("api.bank.example", "trafficPolicy: {tls: {mode: MUTUAL}}", WARNING, "spec.trafficPolicy.tls.mode"),
        (
            "*.example",
            "trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: ISTIO_MUTUAL}}]}",
            SERIOUS,
            "spec.trafficPolicy.portLevelSettings[0].tls.mode",
        ),
        (
            "pay.example",
            "subsets: [{name: a}, {name: b, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]",
            SERIOUS,
            "spec.subsets[1].trafficPolicy.tls.mode",
        ),
    ],
)
def test_mutual_tls_asked_of_a_host_outside(host: str, policy: str, severity: Severity, field: str) -> None:
    finding = the_one(facts(ENTRY + rule(host, policy)))
    assert (finding.id, finding.severity) == ("external-mutual-tls", severity)
    assert finding.where == "DestinationRule shop/tls" and field in finding.what
    assert "ServiceEntry default/bank" in finding.what


def test_mutual_tls_inside_and_simple_tls_outside_are_well() -> None:
    inside = ENTRY.replace("MESH_EXTERNAL", "MESH_INTERNAL")
    assert found(facts(inside + rule("pay.example", "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"))) == []
    assert found(facts(ENTRY + rule("pay.example", "trafficPolicy: {tls: {mode: SIMPLE}}"))) == []
    assert found(facts(ENTRY + rule("web", "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"))) == []


# ── Time-outs ──────────────────────────────────────────────────────────────────────────────────────────────────────
VIRTUAL = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - timeout: 5s
    route: [{destination: {host: web}}]
  - timeout: 0s
    route: [{destination: {host: web}}]
  - redirect: {uri: /}
  - route: [{destination: {host: web}}]
"""
HTTP = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  rules:
  - timeouts: {request: 500ms}
  - timeouts: {backendRequest: 2s}
  - filters: [{type: RequestRedirect}]
  - backendRefs: [{name: web}]
"""


@pytest.mark.parametrize(("text", "kind", "positions"), [(VIRTUAL, "VirtualService", "1, 3"), (HTTP, "HTTPRoute", "3")])
def test_routes_without_any_time_out(text: str, kind: str, positions: str) -> None:
    finding = the_one(facts(text))
    assert (finding.id, finding.severity, finding.where) == ("no-timeout", WARNING, f"{kind} shop/web")
    assert f"(position {positions})" in finding.what


def test_malformed_objects_are_taken_for_absent() -> None:
    nonsense = "\n---\n".join(
        f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}"
        for group, kind in (
            ("v1", "Pod"),
            ("v1", "Service"),
            ("networking.istio.io/v1", "ServiceEntry"),
            ("networking.istio.io/v1", "DestinationRule"),
            ("networking.istio.io/v1", "VirtualService"),
            ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        )
        for spec in ("[1, 2]", "text", "{http: 7, rules: {a: b}, hosts: 1, host: [], containers: x, selector: 3}")
    )
    assert found(facts(nonsense)) == []
