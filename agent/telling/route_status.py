"""status.parents of a route of the Gateway API: what it is to be, as far as it is ours. Pure.

gateway.networking.k8s.io, GEP-1709 and apis/v1/shared_types.go: one entry a parent and controller; the entries of other
controllers are theirs. Only parents that are Services (GAMMA) are served by this mesh.
"""

from datetime import UTC, datetime
from typing import Any, Final

from agent.printable import printable
from proxy.api.stream import Verdict

CONTROLLER: Final = "headgate.io/gateway-controller"
MAX_PARENTS: Final = 32
"""apis/v1/shared_types.go: RouteStatus.parents, MaxItems."""
_MESSAGE_CHARACTERS: Final = 2048
_GATEWAYS: Final = "gateway.networking.k8s.io"

Body = dict[str, Any]


def has_service_parent(route: Body) -> bool:
    return bool(_service_parents(route))


def has_our_entry(route: Body) -> bool:
    return any(_is_ours(entry) for entry in _entries(route))


def wanted_parents(route: Body, verdict: Verdict | None, time_s: float) -> list[Body] | None:
    """All of status.parents as it is to be; None where it is so. `verdict` None, or one of another generation: what is
    not judged yet keeps the status that it has. `time_s`: seconds since the epoch."""
    entries = _entries(route)
    if verdict is not None and verdict.generation != _generation(route):
        verdict = None
    ours: list[Body] = []
    for parent in _service_parents(route):
        known = next(
            (entry for entry in entries if _is_ours(entry) and _same(entry.get("parentRef"), parent, route)), None
        )
        if verdict is not None:
            ours.append(_entry(parent, verdict, known, time_s))
        elif known is not None:
            ours.append(known)
    return _changed(entries, ours)


def without_ours(route: Body) -> list[Body] | None:
    """As `wanted_parents`, of an agent that leaves for good."""
    return _changed(_entries(route), [])


def status_patch(route: Body, parents: list[Body]) -> Body:
    """A merge patch that is refused (409) where the route is another one by now, or of another version: others' entries
    stand in it as they were."""
    metadata = route["metadata"]
    unchanged = {key: metadata[key] for key in ("uid", "resourceVersion") if key in metadata}
    return {"metadata": unchanged, "status": {"parents": parents}}


def _changed(entries: list[Body], ours: list[Body]) -> list[Body] | None:
    others = [entry for entry in entries if not _is_ours(entry)]
    wanted = [*others, *ours][:MAX_PARENTS]
    same = len(wanted) == len(entries) and all(entry in entries for entry in wanted)
    return None if same else wanted


def _entry(parent: Body, verdict: Verdict, known: Body | None, time_s: float) -> Body:
    listed = known.get("conditions") if known is not None else None
    before = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    conditions = [_condition(one, before, verdict.generation, time_s) for one in _conditions(verdict)]
    return {"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions}


def _conditions(verdict: Verdict) -> tuple[tuple[str, str, str, str], ...]:
    """Type, status, reason and message (apis/v1/shared_types.go: RouteConditionType, RouteConditionReason)."""
    if verdict.accepted:
        return (("Accepted", "True", "Accepted", "in force on the nodes of the mesh"),)
    told = f"{verdict.field}: {verdict.reason}" if verdict.field else verdict.reason
    return (
        ("Accepted", "False", "UnsupportedValue", printable(f"not in force: {told}", _MESSAGE_CHARACTERS)),
        ("ResolvedRefs", "Unknown", "Pending", "what it refers to is not looked at before it is accepted"),
    )


def _condition(wanted: tuple[str, str, str, str], before: list[Body], generation: int, time_s: float) -> Body:
    kind, status, reason, message = wanted
    known = next((one for one in before if one.get("type") == kind and one.get("status") == status), None)
    since = known.get("lastTransitionTime") if known is not None else None
    return {
        "type": kind,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since if isinstance(since, str) else _timestamp(time_s),
        "reason": reason,
        "message": message,
    }


def _service_parents(route: Body) -> list[Body]:
    """As the spec has them. The group is Gateways' and the kind Gateway where it says none."""
    spec = route.get("spec")
    listed = spec.get("parentRefs") if isinstance(spec, dict) else None
    refs = [ref for ref in listed if isinstance(ref, dict)] if isinstance(listed, list) else []
    return [ref for ref in refs if (ref.get("group", _GATEWAYS), ref.get("kind", "Gateway")) == ("", "Service")]


def _entries(route: Body) -> list[Body]:
    status = route.get("status")
    listed = status.get("parents") if isinstance(status, dict) else None
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _is_ours(entry: Body) -> bool:
    return entry.get("controllerName") == CONTROLLER


def _same(ref: object, parent: Body, route: Body) -> bool:
    own = route["metadata"].get("namespace", "")
    return isinstance(ref, dict) and _identity(ref, own) == _identity(parent, own)


def _identity(ref: Body, own_namespace: str) -> tuple[object, ...]:
    namespace = ref.get("namespace", own_namespace)
    return (
        ref.get("group", _GATEWAYS),
        ref.get("kind", "Gateway"),
        namespace,
        *map(ref.get, ("name", "sectionName", "port")),
    )


def _generation(route: Body) -> int:
    generation = route["metadata"].get("generation")
    return generation if isinstance(generation, int) else 0


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
