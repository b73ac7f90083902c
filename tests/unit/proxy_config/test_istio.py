"""VirtualService and DestinationRule: splits, subsets, who wins, and what is refused whole."""

import pytest

from proxy.config.text import render_rejection
from proxy.model.address import SocketAddress
from proxy.model.routing import DEFAULT_RETRY, MissingBackend, ServicePort
from tests.unit.proxy_config.samples import (
    MESH,
    PODS,
    RATINGS,
    REVIEWS,
    SLICE,
    SUBSETS,
    VIP,
    VIP6,
    addresses,
    compiled,
    only_rejection,
    route,
    shares,
    split,
)


def missing(*texts: str) -> MissingBackend:
    policy = compiled(*texts)
    backend = policy.services[VIP].rules[0].backends[0].backend
    assert isinstance(backend, MissingBackend), backend
    assert policy.rejections == ()
    return backend


def test_a_split_between_subsets_by_label() -> None:
    port = compiled(*MESH, split(90, 10)).services[VIP]
    assert shares(port) == [("v1", 90), ("v2", 10)]
    assert [addresses(w.backend) for w in port.rules[0].backends] == [["10.1.0.1:8080"], ["10.1.0.2:8080"]]
    assert port.rules[0].retry == DEFAULT_RETRY
    assert port.rules[0].name == "default/reviews/http[0]"
    assert addresses(port.all_endpoints) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    assert port.refused == ""


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_all_served_versions_of_istio_s_api_are_read(version: str) -> None:
    texts = [text.replace("istio.io/v1", f"istio.io/{version}") for text in (*MESH, split(1, 1))]
    assert shares(compiled(*texts).services[VIP]) == [("v1", 1), ("v2", 1)]


def test_another_version_is_refused() -> None:
    rejection = only_rejection(*MESH, split(1, 1).replace("istio.io/v1", "istio.io/v2"))
    assert (rejection.field, rejection.reason) == ("apiVersion", "version v2 is not supported")


def test_weight_0_among_several_gets_nothing() -> None:
    assert shares(compiled(*MESH, split(0, 10)).services[VIP]) == [("v2", 10)]


def test_a_weight_left_out_among_several_is_0() -> None:
    assert shares(compiled(*MESH, split("", 10)).services[VIP]) == [("v2", 10)]


@pytest.mark.parametrize("weight", ["", " 0", " 7"])
def test_a_single_destination_gets_everything(weight: str) -> None:
    port = compiled(*MESH, route("{host: reviews, subset: v2}" + weight)).services[VIP]
    assert [subset for subset, _ in shares(port)] == ["v2"]


@pytest.mark.parametrize(
    ("first", "second", "field", "reason"),
    [
        (0, 0, "spec.http[0].route", "all weights are 0: no destination would get a request"),
        ("", "", "spec.http[0].route", "all weights are 0: no destination would get a request"),
        (-1, 10, "spec.http[0].route[0].weight", "must be 0 to 2147483647, not -1"),
        (90, '"10"', "spec.http[0].route[1].weight", 'must be a whole number, not text "10"'),
        (90, "true", "spec.http[0].route[1].weight", "must be a whole number, not true"),
        (90, "1.5", "spec.http[0].route[1].weight", "must be a whole number, not float 1.5"),
        (90, "10%", "spec.http[0].route[1].weight", 'must be a whole number, not text "10%"'),
        (2147483648, 1, "spec.http[0].route[0].weight", "must be 0 to 2147483647, not 2147483648"),
    ],
)
def test_a_bad_weight_rejects_the_route_and_its_host_answers_500(
    first: object, second: object, field: str, reason: str
) -> None:
    texts = (*MESH, split(first, second))
    rejection = only_rejection(*texts)
    assert (rejection.object, rejection.field, rejection.reason) == ("VirtualService default/reviews", field, reason)
    port = compiled(*texts).services[VIP]
    assert port.refused == f"VirtualService default/reviews is rejected: {field}: {reason}"
    assert [rule.name for rule in port.rules] == ["default"]


def test_weights_that_exceed_envoy_s_sum_are_refused() -> None:
    many = [f"{{host: reviews, subset: v{1 + i % 2}}} 2147483647" for i in range(3)]
    assert "more than 4294967295" in only_rejection(*MESH, route(*many)).reason


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("    timeout: 2s\n", "spec.http[0].timeout"),
        ("    retries: {attempts: 3}\n", "spec.http[0].retries"),
        ("    match: [{uri: {prefix: /}}]\n", "spec.http[0].match"),
        ("    fault: {}\n", "spec.http[0].fault"),
        ("  tls: []\n", "spec.tls"),
    ],
)
def test_a_field_that_this_version_does_not_carry_out_rejects_the_object_whole(more: str, field: str) -> None:
    rejection = only_rejection(*MESH, route("{host: reviews, subset: v1}", more=more))
    assert (rejection.field, rejection.reason) == (field, "not supported by this version")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("  - route:", "  - rout: []\n    route:", "spec.http[0].rout"),
        ("subset: v1}", "subset: v1, subsets: x}", "spec.http[0].route[0].destination.subsets"),
        ("spec:\n", "spec:\n  host: x\n", "spec.host"),
        ("spec:\n", "data: {}\nspec:\n", "data"),
    ],
)
def test_an_unknown_field_is_never_ignored_in_policy(old: str, new: str, field: str) -> None:
    rejection = only_rejection(*MESH, route("{host: reviews, subset: v1}").replace(old, new))
    assert (rejection.field, rejection.reason) == (field, "unknown field")


def test_metadata_and_status_are_free_and_null_is_absent() -> None:
    text = route("{host: reviews, subset: v1}", metadata=", annotations: {a: b}, uid: x", more="    timeout: null\n")
    assert compiled(*MESH, text + "status: {conditions: []}\n").rejections == ()


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        ("hosts: [reviews]", "hosts: []", "spec.hosts", "must name at least one host"),
        ("hosts: [reviews]", "x: 1", "spec.x", "unknown field"),
        ("hosts: [reviews]", "exportTo: []", "spec.hosts", "is missing"),
        ("hosts: [reviews]", "hosts: [10.96.0.10]", "spec.hosts[0]", "must be a name, not an address"),
        ("hosts: [reviews]", "hosts: [Reviews]", "spec.hosts[0]", 'text "Reviews" is not a host name'),
        ("hosts: [reviews]", "hosts: [reviews]\n  exportTo: [.]", "spec.exportTo[0]", "only * is supported"),
        ("host: reviews,", "host: '*.local',", "spec.http[0].route[0].destination.host", "a destination cannot be a"),
        ("subset: v1", "subset: V1", "spec.http[0].route[0].destination.subset", 'text "V1" is not a subset\'s'),
        ("subset: v1", "port: 80", "spec.http[0].route[0].destination.port", "must be a mapping, not int 80"),
        ("subset: v1", "port: {number: 0}", "spec.http[0].route[0].destination.port.number", "must be 1 to 65535"),
    ],
)
def test_malformed_routes_name_the_field(old: str, new: str, field: str, reason: str) -> None:
    rejection = only_rejection(*MESH, route("{host: reviews, subset: v1}").replace(old, new))
    assert rejection.field == field
    assert rejection.reason.startswith(reason)


@pytest.mark.parametrize("http", ["http: []", "http: [{route: []}]", "http: [{name: a}]", ""])
def test_a_virtual_service_without_a_destination_is_refused(http: str) -> None:
    head = route("{host: reviews}").partition("  http:")[0]
    assert compiled(*MESH, head + f"  {http}\n").services[VIP].refused.startswith("VirtualService default/reviews is")


def test_short_names_are_resolved_in_the_rule_s_own_namespace() -> None:
    elsewhere = route("{host: reviews, subset: v1}", metadata=", namespace: other")
    policy = compiled(*MESH, elsewhere)
    assert policy.services[VIP].rules[0].name == "default"
    assert render_rejection(policy.rejections[0]) == (
        "VirtualService other/reviews: spec.hosts: no Service has the host reviews.other.svc.cluster.local: "
        "nothing is routed; create the Service or correct the name (f5.yaml:1)"
    )


def test_a_full_name_reaches_across_namespaces() -> None:
    full = "reviews.default.svc.cluster.local"
    text = route(f"{{host: {full}, subset: v2}}", host=full, metadata=", namespace: other")
    assert shares(compiled(*MESH, text).services[VIP]) == [("v2", 0)]


def test_a_name_with_a_dot_is_taken_as_complete_and_the_rejection_says_what_to_write() -> None:
    rejection = only_rejection(*MESH, route("{host: reviews}", host="reviews.default"))
    assert rejection.remedy == "a name with a dot is taken as complete: write reviews.default.svc.cluster.local"


def test_a_subset_that_nobody_defines_answers_nc_with_the_names_to_look_for() -> None:
    backend = missing(*MESH, route("{host: reviews, subset: v3}"))
    assert (backend.service.name, backend.port, backend.subset) == ("reviews", 80, "v3")
    assert backend.reason == (
        "VirtualService default/reviews routes to subset v3 of reviews.default.svc.cluster.local, which no "
        "DestinationRule defines: add the subset to a DestinationRule for reviews.default.svc.cluster.local"
    )


def test_without_any_destination_rule_the_share_of_a_subset_is_missing_and_the_other_is_not() -> None:
    port = compiled(REVIEWS, PODS, SLICE, route("{host: reviews, subset: v1} 10", "{host: reviews} 90")).services[VIP]
    first, second = port.rules[0].backends
    assert isinstance(first.backend, MissingBackend)
    assert addresses(second.backend) == ["10.1.0.1:8080", "10.1.0.2:8080"]


def test_a_subset_of_a_rejected_destination_rule_names_that_object() -> None:
    texts = (*MESH[:-1], SUBSETS + "  trafficPolicy: {}\n", route("{host: reviews, subset: v1}"))
    policy = compiled(*texts)
    backend = policy.services[VIP].rules[0].backends[0].backend
    assert isinstance(backend, MissingBackend)
    assert backend.reason.endswith("defines: DestinationRule default/reviews is rejected, correct it")
    assert [r.field for r in policy.rejections] == ["spec.trafficPolicy"]


def test_a_service_that_does_not_exist_answers_nc() -> None:
    backend = missing(*MESH, route("{host: nobody}"))
    assert backend.service.host == "nobody.default.svc.cluster.local"
    assert backend.reason == (
        "VirtualService default/reviews routes to nobody.default.svc.cluster.local, which no Service has: "
        "create the Service or correct the name"
    )


def test_an_external_name_service_is_no_destination_yet() -> None:
    external = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: out}\nspec: {type: ExternalName, externalName: a.example}"
    )
    assert missing(*MESH, external, route("{host: out}")).reason.endswith("not supported by this version")


def test_a_subset_without_a_ready_endpoint_is_there_but_empty() -> None:
    text = SLICE.replace("{ready: true}", "{ready: false}")
    port = compiled(REVIEWS, PODS, text, SUBSETS, split(90, 10)).services[VIP]
    assert [addresses(w.backend) for w in port.rules[0].backends] == [["10.1.0.1:8080"], []]


def test_destination_port_defaults_to_the_only_one_of_the_destination() -> None:
    assert compiled(*MESH, RATINGS, route("{host: ratings}")).services[VIP].rules[0].backends[0].backend.port == 9080


def test_destination_port_of_a_service_of_several_defaults_to_the_port_called() -> None:
    several = RATINGS.replace("[{", "[{name: admin, port: 81}, {name: web, port: 80}, {")
    assert compiled(*MESH, several, route("{host: ratings}")).services[VIP].rules[0].backends[0].backend.port == 80


def test_a_destination_port_that_the_service_does_not_have_answers_nc() -> None:
    backend = missing(*MESH, RATINGS, route("{host: ratings, port: {number: 81}}"))
    assert "port 81 of ratings.default.svc.cluster.local, which has no such TCP port (it has 9080)" in backend.reason


def test_a_route_applies_to_every_http_port_of_its_host_and_to_no_declared_tcp_port() -> None:
    service = REVIEWS.replace("ports: [", "ports: [{name: tcp-db, port: 5432}, {name: web, port: 81}, ")
    policy = compiled(service, *MESH[1:], split(1, 1).replace("weight: 1", "weight: x"), split(1, 1))
    names = {port.port: bool(port.refused) for port in policy.services.values()}
    assert names == {5432: False, 81: True, 80: True}


def test_of_two_routes_for_one_host_the_oldest_wins_and_the_other_is_reported() -> None:
    young = route("{host: reviews, subset: v2}", name="a", metadata=", creationTimestamp: 2026-02-01T00:00:00Z")
    old = route("{host: reviews, subset: v1}", name="b", metadata=", creationTimestamp: 2026-01-01T00:00:00Z")
    for texts in ((young, old), (old, young)):
        policy = compiled(*MESH, *texts)
        assert policy.services[VIP].rules[0].name == "default/b/http[0]"
        (rejection,) = policy.rejections
        assert rejection.object == "VirtualService default/a"
        assert rejection.reason == (
            "host reviews.default.svc.cluster.local is ruled by VirtualService default/b, which is older or first by "
            "name; routes of one host are not merged"
        )


def test_without_timestamps_the_name_decides() -> None:
    texts = [route(f"{{host: reviews, subset: {subset}}}", name=name) for name, subset in (("b", "v1"), ("a", "v2"))]
    assert shares(compiled(*MESH, *texts).services[VIP]) == [("v2", 0)]


def test_a_refused_oldest_route_is_not_replaced_by_a_younger_one() -> None:
    refused = route("{host: reviews, subset: v1}", name="a", more="    timeout: 1s\n")
    policy = compiled(*MESH, refused, route("{host: reviews, subset: v2}", name="b"))
    assert policy.services[VIP].refused.startswith("VirtualService default/a is rejected: spec.http[0].timeout")
    assert {r.object for r in policy.rejections} == {"VirtualService default/a", "VirtualService default/b"}


def ruling(*texts: str) -> list[str]:
    policy = compiled(*MESH, RATINGS, *texts)
    assert policy.rejections == ()
    return [policy.services[key].rules[0].name for key in (VIP, SocketAddress("10.96.0.20", 9080))]


def test_the_most_specific_host_wins() -> None:
    everything = route("{host: reviews, subset: v1}", name="all", host="'*'")
    namespace = route("{host: reviews, subset: v1}", name="ns", host="'*.default.svc.cluster.local'")
    exact = route("{host: reviews, subset: v1}", name="one")
    assert ruling(everything) == ["default/all/http[0]"] * 2
    assert ruling(everything, namespace) == ["default/ns/http[0]"] * 2
    assert ruling(everything, namespace, exact) == ["default/one/http[0]", "default/ns/http[0]"]


def test_a_virtual_service_of_a_gateway_alone_says_nothing_to_the_mesh() -> None:
    text = route("{host: reviews, subset: v3}", host="'*'", more="    match: []\n  gateways: [ingress]\n")
    assert ruling(text) == ["default", "default"]
    both = route("{host: reviews, subset: v1}", more="  gateways: [ingress, mesh]\n")
    assert ruling(both)[0] == "default/reviews/http[0]"


def test_a_named_route_carries_its_name() -> None:
    text = route("{host: reviews, subset: v1}", more="    name: canary\n")
    assert ruling(text)[0] == "default/reviews/canary"


def test_subsets_of_several_destination_rules_add_up_and_a_second_definition_is_reported() -> None:
    more = SUBSETS.replace("name: reviews}", "name: more}").replace("name: v2, labels: {version: v2}", "name: all")
    policy = compiled(*MESH, more, route("{host: reviews, subset: all}"))
    assert addresses(policy.services[VIP].rules[0].backends[0].backend) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    (rejection,) = policy.rejections
    assert rejection.object == "DestinationRule default/reviews"
    assert rejection.reason.startswith("subset v1 of reviews.default.svc.cluster.local is defined by an older")


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        ("host: reviews", "host: '*.local'", "spec.host", "wildcard hosts are not supported by this version"),
        ("host: reviews", "host: a.b.svc.cluster.local", "spec.host", "a rule outside its Service's namespace is not"),
        ("name: v2,", "name: v1,", "spec.subsets[1]", "subset v1 is there twice"),
        ("version: v2", "version: 2", "spec.subsets[1].labels[version]", "must be text, not int 2"),
        ("name: v2,", "name: v2, trafficPolicy: {},", "spec.subsets[1].trafficPolicy", "not supported by this version"),
        ("  host: reviews", "  x: 1", "spec.x", "unknown field"),
    ],
)
def test_malformed_destination_rules_name_the_field(old: str, new: str, field: str, reason: str) -> None:
    rejection = only_rejection(*MESH[:-1], SUBSETS.replace(old, new))
    assert rejection.object == "DestinationRule default/reviews"
    assert rejection.field == field
    assert rejection.reason.startswith(reason)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("networking.istio.io/v1", "ServiceEntry"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("policy.linkerd.io/v1beta3", "Server"),
        ("split.smi-spec.io/v1alpha4", "TrafficSplit"),
    ],
)
def test_policy_of_a_kind_that_this_version_does_not_carry_out_is_reported(version: str, kind: str) -> None:
    rejection = only_rejection(*MESH, f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}")
    assert (rejection.object, rejection.reason) == (f"{kind} default/a", f"{kind} is not supported by this version")


def test_other_kinds_are_none_of_ours() -> None:
    assert compiled(*MESH, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: 5").rejections == ()


def test_both_addresses_of_a_service_follow_its_route() -> None:
    policy = compiled(*MESH, split(90, 10))
    ports: list[ServicePort] = [policy.services[VIP], policy.services[VIP6]]
    assert [shares(port) for port in ports] == [[("v1", 90), ("v2", 10)]] * 2
    assert addresses(ports[1].rules[0].backends[0].backend) == ["[fd01::1]:8080"]
