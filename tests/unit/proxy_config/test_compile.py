"""Generations: what stays the same object, what stays in force, what is reported."""

import pickle
from dataclasses import replace

from proxy.config.admission import admit
from proxy.config.compile import compile_policy
from proxy.model.address import SocketAddress
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
    objects,
    raws,
    shares,
    split,
)

RATINGS_VIP = SocketAddress("10.96.0.20", 9080)


def test_nothing_changed_is_the_same_snapshot() -> None:
    first = compiled(*MESH, split(90, 10))
    assert compile_policy(objects(*MESH, split(90, 10)), first) is first


def test_generations_count_from_one() -> None:
    first = compiled(REVIEWS)
    assert first.generation == 1
    assert compile_policy(objects(REVIEWS, RATINGS), first).generation == 2


def test_moving_the_weights_renews_that_service_port_and_shares_everything_else() -> None:
    first = compiled(*MESH, RATINGS, split(90, 10))
    second = compile_policy(objects(*MESH, RATINGS, split(50, 50)), first)
    assert shares(second.services[VIP]) == [("v1", 50), ("v2", 50)]
    assert second.services[RATINGS_VIP] is first.services[RATINGS_VIP]
    old, new = first.services[VIP], second.services[VIP]
    assert new.all_endpoints is old.all_endpoints
    assert [w.backend for w in new.rules[0].backends] == [w.backend for w in old.rules[0].backends]
    assert all(n.backend is o.backend for n, o in zip(new.rules[0].backends, old.rules[0].backends, strict=True))
    assert all(second.pods[key] is first.pods[key] for key in first.pods)
    assert all(second.inbound[key] is first.inbound[key] for key in first.inbound)


def test_an_endpoint_that_becomes_unready_leaves_the_others_as_they_are() -> None:
    first = compiled(*MESH, split(90, 10))
    second = compile_policy(
        objects(*(t.replace("{ready: true}", "{ready: false}") for t in MESH), split(90, 10)), first
    )
    assert second.services[VIP6].all_endpoints is first.services[VIP6].all_endpoints
    old, new = first.services[VIP], second.services[VIP]
    assert addresses(new.all_endpoints) == ["10.1.0.1:8080"]
    assert new.all_endpoints.endpoints[0] is old.all_endpoints.endpoints[0]
    assert new.rules[0].backends[0].backend is old.rules[0].backends[0].backend
    assert second.inbound == first.inbound


def test_a_pod_s_new_label_moves_it_to_another_subset() -> None:
    first = compiled(*MESH, split(90, 10))
    moved = PODS.replace("version: v2", "version: v1")
    second = compile_policy(objects(REVIEWS, moved, SLICE, SUBSETS, split(90, 10)), first)
    assert [addresses(w.backend) for w in second.services[VIP].rules[0].backends] == [
        ["10.1.0.1:8080", "10.1.0.2:8080"],
        [],
    ]
    assert second.pods["default", "reviews-v1"] is first.pods["default", "reviews-v1"]


def test_a_route_that_becomes_invalid_keeps_its_last_good_version_and_is_reported_stale() -> None:
    good = objects(*MESH, split(90, 10))
    first = compile_policy(good, None)
    bad = objects(*MESH, split(50, '"50"'), previous=good)
    second = compile_policy(bad, first)
    assert second.services[VIP] is first.services[VIP]
    (rejection,) = second.rejections
    assert rejection.stale
    assert rejection.field == "spec.http[0].route[1].weight"


def test_a_stale_route_follows_the_endpoints_of_today() -> None:
    good = objects(*MESH, split(90, 10))
    bad = objects(REVIEWS, PODS, SLICE.replace("8080", "8081"), SUBSETS, split(0, 0), previous=good)
    port = compile_policy(bad, compile_policy(good, None)).services[VIP]
    assert shares(port) == [("v1", 90), ("v2", 10)]
    assert addresses(port.rules[0].backends[1].backend) == ["10.1.0.2:8081"]


def test_a_stale_route_stays_stale_through_further_bad_versions_until_it_is_good() -> None:
    current = objects(*MESH, split(90, 10))
    for text, expected, stale in (
        (split(0, 0), [90, 10], [True]),
        (split(-1, 0), [90, 10], [True]),
        (split(20, 80), [20, 80], []),
    ):
        current = objects(*MESH, text, previous=current)
        policy = compile_policy(current, None)
        assert [weight for _, weight in shares(policy.services[VIP])] == expected
        assert [rejection.stale for rejection in policy.rejections] == stale


def test_a_refused_route_never_counts_as_a_good_version() -> None:
    current = objects(*MESH, split(0, 0))
    for text in (split(0, 0), split(-1, 5)):
        current = objects(*MESH, text, previous=current)
        policy = compile_policy(current, None)
        assert policy.services[VIP].refused
        assert [rejection.stale for rejection in policy.rejections] == [False]


def test_a_route_that_is_deleted_is_gone() -> None:
    good = objects(*MESH, split(90, 10))
    without = objects(*MESH, previous=objects(*MESH, split(0, 0), previous=good))
    policy = compile_policy(without, compile_policy(good, None))
    assert [rule.name for rule in policy.services[VIP].rules] == ["default"]
    assert policy.rejections == ()


def test_a_malformed_slice_keeps_its_last_good_endpoints() -> None:
    good = objects(*MESH)
    bad = objects(REVIEWS, PODS, SLICE.replace("[10.1.0.1]", "[nonsense]"), previous=good)
    policy = compile_policy(bad, None)
    assert addresses(policy.services[VIP].all_endpoints) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    assert [(r.object, r.stale) for r in policy.rejections] == [("EndpointSlice default/reviews-v4", True)]


def test_of_two_objects_with_one_name_the_first_counts() -> None:
    policy = compiled(*MESH, split(90, 10), split(10, 90))
    assert shares(policy.services[VIP]) == [("v1", 90), ("v2", 10)]
    (rejection,) = policy.rejections
    assert (rejection.object, rejection.source) == ("VirtualService default/reviews", "f6.yaml:1")
    assert rejection.reason == "is there already: f5.yaml:1 defines it too, and counts"


def test_an_unchanged_object_is_not_decoded_again() -> None:
    read = raws(*MESH)
    first = admit(read)
    changed = [*read[:-1], replace(read[-1])]
    second = admit(changed, (), first)
    kept = [second.admitted[raw.key] is first.admitted[raw.key] for raw in read]
    assert kept == [True] * (len(read) - 1) + [False]


def test_one_and_true_are_not_the_same_object() -> None:
    good = objects(*MESH, split(1, 1))
    bad = objects(*MESH, split("true", 1), previous=good)
    assert [r.field for r in compile_policy(bad, None).rejections] == ["spec.http[0].route[0].weight"]


def test_a_snapshot_reaches_a_worker_unchanged() -> None:
    policy = compiled(*MESH, split(90, 10), split(0, 0).replace("name: reviews}", "name: b}"))
    assert pickle.loads(pickle.dumps(policy)) == policy
