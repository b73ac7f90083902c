"""A review is hostile from its first byte to the last name in the pod."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from agent.webhook.review import Mutation, NoReview, Outcome, answered, failed, review_of

_POD = {"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}


def _asked(**changes: Any) -> dict[str, Any]:
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop",
        "operation": "CREATE",
        "object": _POD,
        "oldObject": None,
        "dryRun": False,
    }
    request |= changes
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def _body(asked: Any) -> bytes:
    return json.dumps(asked).encode()


def _unasked(pod: Mapping[str, Any], namespace: str) -> Mutation:
    raise AssertionError("asked about no pod")


def test_a_new_pod_is_read() -> None:
    review = review_of(_body(_asked()))
    assert (review.namespace, review.pod) == ("shop", _POD)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 200_000, "is no JSON"),
        (b"[]", "is no AdmissionReview of"),
        (b"null", "is no AdmissionReview of"),
        (_body({**_asked(), "apiVersion": "admission.k8s.io/v1beta1"}), "is no AdmissionReview of"),
        (_body({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}), "request: is no object"),
        (_body(_asked(uid="")), r"request\.uid"),
        (_body(_asked(uid=7)), r"request\.uid"),
        (_body(_asked(uid="u" * 129)), r"request\.uid"),
        (_body(_asked(namespace=["shop"])), r"request\.namespace"),
        (_body(_asked(kind="Pod")), r"request\.kind: is no object"),
        (_body(_asked(object=None)), r"request\.object: is no object"),
        (_body(_asked(object=[])), r"request\.object: is no object"),
    ],
)
def test_what_is_no_review_is_told(body: bytes, told: str) -> None:
    with pytest.raises(NoReview, match=told):
        review_of(body)


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"operation": "UPDATE"}, "UPDATE Pod"),
        ({"operation": "DELETE", "object": None}, "DELETE Pod"),
        ({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, "CREATE Deployment.apps"),
        ({"subResource": "exec"}, "CREATE Pod/exec"),
        ({"operation": "\x1b[2J"}, r"\x1b[2J Pod"),
    ],
)
def test_what_is_about_something_else_is_let_pass_and_told(changes: dict[str, Any], about: str) -> None:
    """A rule that was written too wide must not stop a cluster."""
    answer, outcome = answered(review_of(_body(_asked(**changes))), _unasked)
    response = answer["response"]
    assert (response["allowed"], outcome) == (True, Outcome.UNCHANGED)
    assert "patch" not in response
    assert f"was asked about {about}" in response["warnings"][0]


def _given(mutation: Mutation) -> tuple[dict[str, Any], Outcome]:
    answer, outcome = answered(review_of(_body(_asked())), lambda pod, namespace: mutation)
    assert answer["kind"] == "AdmissionReview"
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    assert answer["response"]["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    return answer["response"], outcome


def test_a_change_is_a_patch_in_base64() -> None:
    operations = [{"op": "add", "path": "/spec/volumes", "value": []}]
    response, outcome = _given(Mutation(operations, ("something",)))
    assert (response["allowed"], response["patchType"], outcome) == (True, "JSONPatch", Outcome.INJECTED)
    assert json.loads(base64.b64decode(response["patch"])) == operations
    assert response["warnings"] == ["something"]


def test_no_change_is_no_patch() -> None:
    """An empty patch with a type, or a type without a patch, is an error to the API server."""
    response, outcome = _given(Mutation())
    assert response.keys() == {"uid", "allowed"}
    assert outcome is Outcome.UNCHANGED


def test_what_is_refused_is_said_to_who_makes_the_pod() -> None:
    response, outcome = _given(Mutation([{"op": "add", "path": "/x", "value": 1}], refusal="port 15001 is\ntaken"))
    assert (response["allowed"], outcome) == (False, Outcome.REFUSED)
    assert response["status"] == {"code": 422, "message": r"port 15001 is\ntaken"}
    assert "patch" not in response


def test_warnings_are_short_few_and_harmless() -> None:
    response, _ = _given(Mutation(warnings=tuple(f"{place}\x1b{'w' * 400}" for place in range(40))))
    warnings = response["warnings"]
    assert len(warnings) == 12
    assert all(len(one) <= 250 and one.isprintable() for one in warnings)
    assert sum(map(len, warnings)) <= 4096


def test_our_own_fault_lets_nothing_start_unsteered() -> None:
    response = failed(review_of(_body(_asked())), "KeyError")["response"]
    assert response["allowed"] is False
    assert "please report it: KeyError" in response["status"]["message"]
