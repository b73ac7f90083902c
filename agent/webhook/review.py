"""An API server's question about a pod, and the answer (admission.k8s.io/v1, k8s.io/api/admission/v1/types.go). Pure.

A question that is none gets an error; one about something else than a new pod is allowed as it is, for a rule that was
written too wide must not stop a cluster. A pod that cannot be changed safely is not allowed: nothing starts unsteered
that was to be steered.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from agent.printable import printable

API_VERSION: Final = "admission.k8s.io/v1"
_KIND: Final = "AdmissionReview"
_UID_LIMIT: Final = 128
_WARNING_LIMIT: Final = 250
"""kubernetes.io/docs, Dynamic Admission Control: warnings longer than 256 characters may be cut by API servers."""
_WARNINGS: Final = 12
"""The same place: 4,096 characters of them in all."""
_MESSAGE_LIMIT: Final = 1000
_REFUSED: Final = 422
"""Unprocessable Entity: of the pod, which the same again will not mend."""


class NoReview(ValueError):
    """What was sent is no question: where, what."""


@dataclass(frozen=True, slots=True)
class Review:
    """`pod` None: it is about something else, `about` says what."""

    uid: str
    namespace: str
    pod: Mapping[str, Any] | None
    about: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """`patch`: operations by RFC 6902, none when nothing is to be changed. `refusal`: why the pod may not be made."""

    patch: Sequence[Mapping[str, Any]] = ()
    warnings: tuple[str, ...] = ()
    refusal: str = ""


Mutate = Callable[[Mapping[str, Any], str], Mutation]
"""Of a pod and the namespace that it will be in."""


class Outcome(Enum):
    INJECTED = "injected"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"  # we could not tell, which is a fault of ours
    MALFORMED = "malformed"


def review_of(body: bytes) -> Review:
    """Raises NoReview."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoReview(f"is no JSON: {printable(str(error) or type(error).__name__, 100)}") from error
    if not isinstance(told, dict) or told.get("apiVersion") != API_VERSION or told.get("kind") != _KIND:
        raise NoReview(f"is no {_KIND} of {API_VERSION}")
    request = _map(told, "request", "")
    uid = request.get("uid")
    if not isinstance(uid, str) or not 0 < len(uid) <= _UID_LIMIT:
        raise NoReview("request.uid: is no text, or empty")
    namespace = request.get("namespace", "")
    if not isinstance(namespace, str):
        raise NoReview("request.namespace: is no text")
    kind = _map(request, "kind", "request.")
    about = _about(request, kind)
    pod = _map(request, "object", "request.") if about == _NEW_POD else None
    return Review(uid, namespace, pod, about)


_NEW_POD: Final = "CREATE Pod"


def _about(request: Mapping[str, Any], kind: Mapping[str, Any]) -> str:
    group, name = kind.get("group") or "", kind.get("kind")
    below = f"/{request['subResource']}" if request.get("subResource") else ""
    dotted = f"{name}.{group}" if group else f"{name}"
    return printable(f"{request.get('operation')} {dotted}{below}", 100)


def _map(within: Mapping[str, Any], key: str, before: str) -> Mapping[str, Any]:
    found = within.get(key)
    if not isinstance(found, dict):
        raise NoReview(f"{before}{key}: is no object")
    return found


def answered(review: Review, mutate: Mutate) -> tuple[dict[str, Any], Outcome]:
    """The AdmissionReview to send back."""
    if review.pod is None:
        warning = f"headgate changes new pods only, and was asked about {review.about}: narrow the rules"
        return _answer(review.uid, Mutation(warnings=(warning,))), Outcome.UNCHANGED
    mutation = mutate(review.pod, review.namespace)
    outcome = Outcome.REFUSED if mutation.refusal else Outcome.INJECTED if mutation.patch else Outcome.UNCHANGED
    return _answer(review.uid, mutation), outcome


def failed(review: Review, why: str) -> dict[str, Any]:
    """For what should not be: the pod is not made, and whoever makes it reads that it is our fault."""
    return _answer(review.uid, Mutation(refusal=f"headgate could not read this pod, please report it: {why}"))


def _answer(uid: str, mutation: Mutation) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": uid, "allowed": not mutation.refusal}
    if mutation.refusal:
        response["status"] = {"code": _REFUSED, "message": printable(mutation.refusal, _MESSAGE_LIMIT)}
    elif mutation.patch:
        operations = json.dumps(list(mutation.patch), separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(operations).decode("ascii")}
    if warnings := [printable(one, _WARNING_LIMIT) for one in mutation.warnings[:_WARNINGS]]:
        response["warnings"] = warnings
    return {"apiVersion": API_VERSION, "kind": _KIND, "response": response}
