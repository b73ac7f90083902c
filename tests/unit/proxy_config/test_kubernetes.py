"""Services, EndpointSlices and Pods: what they amount to, and what is refused."""

import pytest

from proxy.config.protocols import declared_protocol
from proxy.model.address import SocketAddress
from proxy.model.routing import Protocol
from proxy.model.workload import Workload
from tests.unit.proxy_config.samples import (
    MESH,
    PODS,
    REVIEWS,
    SLICE,
    SLICE6,
    VIP,
    VIP6,
    addresses,
    compiled,
    only_rejection,
)


def test_a_service_of_two_families_is_found_at_both_addresses_with_its_own_family_behind() -> None:
    policy = compiled(*MESH)
    assert list(policy.services) == [VIP, VIP6]
    assert addresses(policy.services[VIP].all_endpoints) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    assert addresses(policy.services[VIP6].all_endpoints) == ["[fd01::1]:8080"]
    assert policy.services[VIP].service.host == "reviews.default.svc.cluster.local"
    assert policy.rejections == ()


def test_without_an_endpoint_of_its_own_family_an_address_is_served_by_the_other() -> None:
    assert addresses(compiled(REVIEWS, PODS, SLICE6).services[VIP].all_endpoints) == ["[fd01::1]:8080"]


def test_a_service_without_a_route_has_one_implicit_rule_to_all_endpoints() -> None:
    port = compiled(*MESH).services[VIP]
    assert [rule.name for rule in port.rules] == ["default"]
    assert port.rules[0].backends[0].backend is port.all_endpoints


def test_a_headless_service_has_no_virtual_address_but_declares_its_pods_ports() -> None:
    policy = compiled(REVIEWS.replace('clusterIPs: [10.96.0.10, "fd96::10"]', "").replace("10.96.0.10", "None"), SLICE)
    assert policy.services == {}
    assert policy.inbound[SocketAddress("10.1.0.1", 8080)].service.name == "reviews"


def test_endpoints_are_joined_by_port_name_and_take_the_slice_s_number() -> None:
    service = REVIEWS.replace("ports: [{name: http,", "ports: [{name: metrics, port: 9090}, {name: http,")
    policy = compiled(service, PODS, SLICE)
    assert addresses(policy.services[VIP].all_endpoints) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    assert addresses(policy.services[SocketAddress("10.96.0.10", 9090)].all_endpoints) == []


def test_several_slices_of_a_service_add_up_and_an_endpoint_counts_once() -> None:
    other = SLICE.replace("reviews-v4", "reviews-x").replace("10.1.0.1]", "10.1.0.3]")
    assert addresses(compiled(REVIEWS, PODS, SLICE, other).services[VIP].all_endpoints) == [
        "10.1.0.1:8080",
        "10.1.0.2:8080",
        "10.1.0.3:8080",
    ]


def test_an_endpoint_in_two_slices_is_ready_if_one_says_so() -> None:
    unready = SLICE.replace("{ready: true}", "{ready: false}").replace("reviews-v4", "reviews-old")
    for slices in ((unready, SLICE), (SLICE, unready)):
        assert "10.1.0.2:8080" in addresses(compiled(REVIEWS, PODS, *slices).services[VIP].all_endpoints)


@pytest.mark.parametrize(
    ("conditions", "called"),
    [
        ("{}", True),
        ("{ready: null}", True),
        ("{ready: true}", True),
        ("{ready: false}", False),
        ("{ready: false, serving: true}", False),
        ("{ready: false, serving: true, terminating: true}", False),
    ],
)
def test_only_ready_endpoints_are_called_where_there_is_one(conditions: str, called: bool) -> None:
    policy = compiled(REVIEWS, PODS, SLICE.replace("{ready: true}", conditions))
    assert ("10.1.0.2:8080" in addresses(policy.services[VIP].all_endpoints)) is called


@pytest.mark.parametrize(
    ("conditions", "called"),
    [
        ("{ready: false, serving: true, terminating: true}", ["10.1.0.2:8080"]),
        ("{ready: false, serving: false, terminating: true}", []),
        ("{ready: false, terminating: true}", []),
        ("{ready: false, serving: true, terminating: false}", []),
    ],
)
def test_without_a_ready_endpoint_those_still_serving_while_they_terminate_are_called(
    conditions: str, called: list[str]
) -> None:
    text = SLICE.replace("- {addresses: [10.1.0.1],", "- {conditions: {ready: false}, addresses: [10.1.0.1],")
    policy = compiled(REVIEWS, PODS, text.replace("{ready: true}", conditions))
    assert addresses(policy.services[VIP].all_endpoints) == called


def test_unready_endpoints_still_declare_what_their_port_speaks() -> None:
    policy = compiled(REVIEWS, SLICE.replace("{ready: true}", "{ready: false}"))
    assert policy.inbound[SocketAddress("10.1.0.2", 8080)].protocol is Protocol.HTTP


def test_the_first_service_by_name_declares_a_pod_s_port() -> None:
    also = REVIEWS.replace("name: reviews", "name: all").replace("96.0.10", "96.0.9").replace("fd96::10", "fd96::9")
    slices = SLICE.replace("service-name: reviews", "service-name: all").replace("reviews-v4", "all-v4")
    policy = compiled(REVIEWS, SLICE, also, slices)
    assert policy.inbound[SocketAddress("10.1.0.1", 8080)].service.name == "all"


def test_udp_ports_are_left_out() -> None:
    service = REVIEWS.replace("ports: [", "ports: [{name: dns, port: 53, protocol: UDP}, ")
    assert list(compiled(service).services) == [VIP, VIP6]


@pytest.mark.parametrize(
    ("app_protocol", "name", "protocol"),
    [
        ("", "http", Protocol.HTTP),
        ("", "http-web", Protocol.HTTP),
        ("", "HTTP-web", Protocol.HTTP),
        ("", "http2", Protocol.HTTP2),
        ("", "grpc-api", Protocol.GRPC),
        ("", "grpc-web-x", Protocol.HTTP),
        ("", "https", Protocol.TLS),
        ("", "tls-x", Protocol.TLS),
        ("", "tcp", Protocol.TCP),
        ("", "mysql", Protocol.TCP),
        ("", "web-http", Protocol.UNDECLARED),
        ("", "httpx", Protocol.UNDECLARED),
        ("", "", Protocol.UNDECLARED),
        ("http", "tcp", Protocol.HTTP),
        ("kubernetes.io/h2c", "http", Protocol.HTTP2),
        ("kubernetes.io/ws", "", Protocol.HTTP),
        ("kubernetes.io/wss", "", Protocol.TLS),
        ("linkerd.io/opaque", "http", Protocol.TCP),
        ("example.com/own", "http", Protocol.UNDECLARED),
    ],
)
def test_protocol_as_istio_and_linkerd_declare_it(app_protocol: str, name: str, protocol: Protocol) -> None:
    assert declared_protocol(app_protocol, name) is protocol


def test_a_service_port_carries_its_app_protocol() -> None:
    service = REVIEWS.replace("port: 80,", "port: 80, appProtocol: tcp,")
    assert compiled(service).services[VIP].protocol is Protocol.TCP


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        ("port: 80,", 'port: "80",', "spec.ports[0].port", 'must be a whole number, not text "80"'),
        ("port: 80,", "port: 0,", "spec.ports[0].port", "must be 1 to 65535, not 0"),
        ("port: 80,", "port: true,", "spec.ports[0].port", "must be a whole number, not true"),
        ("port: 80,", "", "spec.ports[0].port", "is missing"),
        ("name: http", "name: [x]", "spec.ports[0].name", "must be text, not a list"),
        ("[10.96.0.10,", "[reviews.example,", "spec.clusterIPs[0]", 'text "reviews.example" is not an IP address'),
        ("[10.96.0.10,", "[127.0.0.1,", "spec.clusterIPs[0]", "127.0.0.1 is loopback, link-local, multicast or"),
        (
            "fd96::10",
            "::ffff:10.0.0.1",
            "spec.clusterIPs[1]",
            'text "::ffff:10.0.0.1" has a zone or is an IPv4 address',
        ),
        ("ports: [", "ports: [{name: b, port: 80}, ", "spec.ports[1]", "port 80 or its name is there twice"),
    ],
)
def test_a_malformed_service_names_object_and_field_and_the_others_stay(
    old: str, new: str, field: str, reason: str
) -> None:
    broken = REVIEWS.replace(old, new, 1)
    other = REVIEWS.replace("reviews", "other").replace("96.0.10", "96.0.9").replace("fd96::10", "fd96::9")
    rejection = only_rejection(broken, other)
    assert (rejection.object, rejection.field, rejection.source) == ("Service default/reviews", field, "f0.yaml:2")
    assert rejection.reason.startswith(reason)
    assert list(compiled(broken, other).services) == [SocketAddress("10.96.0.9", 80), SocketAddress("fd96::9", 80)]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("[10.1.0.1]", "[10.1.0.300]", "endpoints[0].addresses[0]"),
        ("[10.1.0.1]", "[127.0.0.1]", "endpoints[0].addresses[0]"),
        ("[10.1.0.1]", "[169.254.169.254]", "endpoints[0].addresses[0]"),
        ("[10.1.0.1]", '["fd01::1"]', "endpoints[0]"),
        ("port: 8080", "port: 70000", "ports[0].port"),
        ("{ready: true}", "{ready: 1}", "endpoints[1].conditions.ready"),
        ("addressType: IPv4", "", "addressType"),
        ("name: reviews-v2", "name: a b", "endpoints[1].targetRef.name"),
    ],
)
def test_a_malformed_endpoint_slice_is_refused_whole(old: str, new: str, field: str) -> None:
    text = SLICE.replace(old, new, 1)
    assert only_rejection(text, REVIEWS).field == field
    assert addresses(compiled(text, REVIEWS).services[VIP].all_endpoints) == []


def test_unknown_fields_of_core_kinds_are_ignored() -> None:
    policy = compiled(*(text.replace("addressType", "nodeName: x\naddressType") for text in MESH))
    assert policy.rejections == ()


def test_two_services_with_one_address_the_first_by_name_keeps_it() -> None:
    policy = compiled(REVIEWS.replace("name: reviews", "name: zebra"), REVIEWS)
    assert policy.services[VIP].service.name == "reviews"
    assert [r.object for r in policy.rejections] == ["Service default/zebra", "Service default/zebra"]
    assert policy.rejections[0].reason == "10.96.0.10:80 belongs to Service default/reviews, which comes first by name"


def pod(metadata: str, rest: str = "") -> Workload:
    policy = compiled(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p-1, {metadata}}}\n{rest}")
    assert policy.rejections == ()
    return policy.pods["default", "p-1"]


def owner(kind: str, name: str, labels: str = "") -> str:
    reference = f"{{kind: {kind}, name: {name}, controller: true}}"
    return f"generateName: p-, ownerReferences: [{{kind: X, name: x}}, {reference}], labels: {{{labels}}}"


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        (owner("ReplicaSet", "web-5d4f", "pod-template-hash: 5d4f"), "web"),
        (owner("ReplicaSet", "web-5d4f", "rollouts-pod-template-hash: 5d4f"), "web"),
        (owner("ReplicaSet", "alone"), "alone"),
        (owner("StatefulSet", "db"), "db"),
        (owner("DaemonSet", "logs"), "logs"),
        (owner("Job", "report"), "report"),
        (owner("Job", "report-28123456"), "report"),
        (owner("StatefulSet", "db", "service.istio.io/workload-name: own"), "own"),
        (owner("StatefulSet", "db").replace("generateName: p-, ", ""), "p-1"),
        ("labels: {}", "p-1"),
    ],
)
def test_the_workload_behind_a_pod(metadata: str, name: str) -> None:
    assert pod(metadata).name == name


@pytest.mark.parametrize(
    ("labels", "name", "revision"),
    [
        ("", "p-1", "latest"),
        ("app: a, version: v1", "a", "v1"),
        ("app: a, app.kubernetes.io/name: b, version: v1, app.kubernetes.io/version: v2", "b", "v2"),
        (
            "app: a, app.kubernetes.io/name: b, service.istio.io/canonical-name: c, "
            "service.istio.io/canonical-revision: v3, version: v1",
            "c",
            "v3",
        ),
    ],
)
def test_canonical_name_and_revision_as_in_istio(labels: str, name: str, revision: str) -> None:
    workload = pod(f"labels: {{{labels}}}")
    assert (workload.canonical_name, workload.canonical_revision) == (name, revision)


def test_what_a_pod_does_not_say_is_unknown_and_its_service_account_default() -> None:
    workload = pod("labels: {}")
    assert (workload.app, workload.version, workload.service_account) == ("unknown", "unknown", "default")
    assert pod("labels: {}", "spec: {serviceAccountName: shop}").service_account == "shop"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ("labels: {version: 1}", "metadata.labels[version]"),
        ('labels: {app: "a\\nb"}', "metadata.labels[app]"),
        ('labels: {"bad key": a}', "metadata.labels"),
        ("labels: [app]", "metadata.labels"),
        ("generateName: p-, ownerReferences: [{kind: Job, name: 'a b', controller: true}]", "ownerReferences[0].name"),
    ],
)
def test_a_hostile_label_or_owner_rejects_the_pod(metadata: str, field: str) -> None:
    rejection = only_rejection(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p, {metadata}}}")
    assert rejection.field.endswith(field)


def test_addresses_of_host_network_and_finished_pods_belong_to_nobody() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {hostNetwork: %s}\nstatus: {podIP: 10.1.0.9, phase: %s}"
    )
    assert set(compiled(text % ("false", "Running")).workloads) == {"10.1.0.9"}
    for host_network, phase in (("true", "Running"), ("false", "Succeeded"), ("false", "Failed")):
        policy = compiled(text % (host_network, phase))
        assert policy.workloads == {}
        assert ("default", "p") in policy.pods


def test_an_address_that_two_pods_claim_belongs_to_the_younger() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s, creationTimestamp: %s}\nstatus: {podIPs: [{ip: 10.1.0.9}]}"
    old, new = text % ("a", "2026-01-01T00:00:00Z"), text % ("b", "2026-01-02T00:00:00Z")
    for texts in ((old, new), (new, old)):
        assert compiled(*texts).workloads["10.1.0.9"].pod == "b"


def test_an_endpoint_of_an_unknown_pod_is_called_and_named_by_its_target() -> None:
    endpoint = compiled(REVIEWS, SLICE).services[VIP].all_endpoints.endpoints[0]
    assert (endpoint.workload.pod, endpoint.workload.name, endpoint.workload.labels) == ("reviews-v1", "unknown", ())


def test_an_endpoint_without_target_is_known_by_its_address() -> None:
    text = SLICE.replace(", targetRef: {kind: Pod, name: reviews-v1}", "")
    assert compiled(REVIEWS, PODS, text).services[VIP].all_endpoints.endpoints[0].workload.pod == "reviews-v1"
