"""agent.telling.route_status: our entries of status.parents, and nobody else's."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agent.telling.route_status import (
    CONTROLLER,
    MAX_PARENTS,
    has_our_entry,
    has_service_parent,
    status_patch,
    wanted_parents,
    without_ours,
)
from proxy.api.stream import ObjectName, Verdict

T = 1_700_000_000.0
NAME = ObjectName("gateway.networking.k8s.io", "HTTPRoute", "shop", "cart")
REJECTED = Verdict(NAME, 3, False, "kind", "HTTPRoute is not supported by this version")
SERVICE = {"group": "", "kind": "Service", "name": "cart", "port": 80}
GATEWAY = {"name": "edge"}
THEIRS = {"parentRef": GATEWAY, "controllerName": "example.com/gateway", "conditions": [{"type": "Accepted"}]}


def _route(*parents: Any, entries: list[Any] | None = None, generation: int = 3) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": "cart", "namespace": "shop", "uid": "u-1", "resourceVersion": "77", "generation": generation,
        },
        "spec": {"parentRefs": list(parents)},
        **({} if entries is None else {"status": {"parents": entries}}),
    }  # fmt: skip


def _written(route: dict[str, Any], parents: list[Any] | None) -> dict[str, Any]:
    """As the API server has it then."""
    assert parents is not None
    made = copy.deepcopy(route)
    made["status"] = {"parents": parents}
    return made


def test_a_route_that_is_not_in_force_says_so_and_why() -> None:
    parents = wanted_parents(_route(SERVICE), REJECTED, T)
    assert parents is not None
    (entry,) = parents
    assert (entry["parentRef"], entry["controllerName"]) == (SERVICE, CONTROLLER)
    accepted, resolved = entry["conditions"]
    assert (accepted["type"], accepted["status"], accepted["reason"]) == ("Accepted", "False", "UnsupportedValue")
    assert accepted["message"] == "not in force: kind: HTTPRoute is not supported by this version"
    assert (accepted["observedGeneration"], accepted["lastTransitionTime"]) == (3, "2023-11-14T22:13:20Z")
    assert (resolved["type"], resolved["status"], resolved["reason"]) == ("ResolvedRefs", "Unknown", "Pending")


def test_what_is_written_once_is_not_written_again() -> None:
    route = _route(SERVICE, GATEWAY, entries=[THEIRS])
    assert wanted_parents(_written(route, wanted_parents(route, REJECTED, T)), REJECTED, T + 1000) is None


def test_others_entries_and_gateways_are_theirs() -> None:
    parents = wanted_parents(_route(GATEWAY, SERVICE, entries=[THEIRS]), REJECTED, T)
    assert parents is not None
    assert parents[0] == THEIRS
    assert [entry["controllerName"] for entry in parents] == ["example.com/gateway", CONTROLLER]
    assert wanted_parents(_route(GATEWAY, entries=[THEIRS]), REJECTED, T) is None


def test_the_time_of_a_change_stays_while_the_status_does() -> None:
    first = _written(_route(SERVICE), wanted_parents(_route(SERVICE), REJECTED, T))
    first["metadata"]["generation"] = 4
    newer = Verdict(NAME, 4, False, "spec.rules[0]", "other words")
    parents = wanted_parents(first, newer, T + 60)
    assert parents is not None
    (accepted, _) = parents[0]["conditions"]
    assert (accepted["lastTransitionTime"], accepted["observedGeneration"]) == ("2023-11-14T22:13:20Z", 4)
    now_accepted = wanted_parents(first, Verdict(NAME, 4, True), T + 60)
    assert now_accepted is not None
    (accepted,) = now_accepted[0]["conditions"]
    assert (accepted["status"], accepted["lastTransitionTime"]) == ("True", "2023-11-14T22:14:20Z")


def test_what_is_not_judged_yet_keeps_what_it_says() -> None:
    route = _route(SERVICE)
    said = _written(route, wanted_parents(route, REJECTED, T))
    assert wanted_parents(route, None, T) is None
    assert wanted_parents(said, None, T) is None
    said["metadata"]["generation"] = 9
    assert wanted_parents(said, REJECTED, T) is None


def test_a_parent_that_is_none_any_more_loses_its_entry() -> None:
    said = _written(_route(SERVICE), wanted_parents(_route(SERVICE, entries=[THEIRS]), REJECTED, T))
    said["spec"]["parentRefs"] = [GATEWAY]
    assert not has_service_parent(said)
    assert has_our_entry(said)
    assert wanted_parents(said, REJECTED, T) == [THEIRS]
    assert without_ours(said) == [THEIRS]
    assert without_ours(_route(SERVICE, entries=[THEIRS])) is None


def test_two_ports_of_one_service_are_two_parents_and_the_routes_own_namespace_is_none() -> None:
    route = _route(SERVICE, {**SERVICE, "port": 81})
    parents = wanted_parents(route, REJECTED, T)
    assert parents is not None
    assert [entry["parentRef"]["port"] for entry in parents] == [80, 81]
    with_namespace = _written(route, parents)
    with_namespace["spec"]["parentRefs"][0] = {**SERVICE, "namespace": "shop"}
    changed = wanted_parents(with_namespace, REJECTED, T + 60)
    assert changed is not None
    assert changed[0]["conditions"][0]["lastTransitionTime"] == "2023-11-14T22:13:20Z"


def test_a_patch_holds_for_the_version_that_was_decided_upon_only() -> None:
    patch = status_patch(_route(SERVICE), [THEIRS])
    assert patch == {"metadata": {"uid": "u-1", "resourceVersion": "77"}, "status": {"parents": [THEIRS]}}


def test_a_full_list_is_not_overfilled() -> None:
    route = _route(SERVICE, entries=[{**THEIRS, "n": n} for n in range(MAX_PARENTS)])
    assert wanted_parents(route, REJECTED, T) is None


@pytest.mark.parametrize("spec", [None, 3, {"parentRefs": 4}, {"parentRefs": [None, 7, [], {"kind": {}}]}])
@pytest.mark.parametrize("status", [None, [], {"parents": "x"}, {"parents": [None, 3, {"controllerName": []}]}])
def test_a_route_of_nonsense_is_left_alone(spec: Any, status: Any) -> None:
    route = {**_route(), "spec": spec, "status": status}
    assert not has_service_parent(route)
    assert wanted_parents(route, REJECTED, T) in (None, [])
