"""What agent and proxy answer, as facts. Pure; of another version's words nothing is guessed: Unreadable."""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, TypeVar

from agent.why.facts import (
    Agent,
    Difference,
    LeftOut,
    Listed,
    Objects,
    Origin,
    Outside,
    Pod,
    ProbePath,
    Probes,
    Proved,
    Proxy,
    Rejection,
    Served,
    Source,
    SourceKind,
    Unknown,
    Wishes,
)

T = TypeVar("T")


class Unreadable(ValueError):
    """An answer has another form than this version's. The same answer fails again: do not retry."""


def heard(read: Callable[[Any], T], body: object) -> T:
    """`read` of this module's readers. Raises Unreadable."""
    try:
        return read(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


# ── The agent's ────────────────────────────────────────────────────────────────────────────────────────────────────
def agent(body: Mapping[str, Any]) -> Agent:
    """`agent` of GET /why/NAMESPACE/NAME."""
    source, objects = body["source"], body["objects"]
    return Agent(
        Source(SourceKind(source["kind"]), _text(source["place"]), _texts(source["problems"]), _texts(source["pods"])),
        _flag(body["proxy_connected"]),
        None
        if objects is None
        else Objects(_text(objects["place"]), _flag(objects["complete"]), _texts(objects["problems"])),
        _text(body["backend"]),
        _text(body["netns_id"]),
    )


def pod(body: Mapping[str, Any]) -> Pod:
    """`pod` of it."""
    counts = body["unsteered_connections"]
    return Pod(
        name=f"{_text(body['namespace'])}/{_text(body['name'])}",
        uid=_text(body["uid"]),
        addresses=tuple(ip_address(_text(address)) for address in body["addresses"]),
        left_out=_text(body["left_out"]),
        mesh_label=_maybe(body["mesh_label"]),
        netns_path=_text(body["netns"]),
        netns_id=_text(body["netns_id"]),
        state=_text(body["state"]),
        reason=_text(body["reason"]),
        installed=_flag(body["installed"]),
        drained=_flag(body["drained"]),
        wishes=_wishes(body["wishes"]),
        difference=_difference(body["difference"]),
        proofs=proofs(body),
        outside=Outside(
            _number(counts["grandfathered"]),
            _number(counts["drift"]),
            _number(counts["rules_changed"]),
            _texts(body["outside"]),
        ),
        object_known=None if body["object_known"] is None else _flag(body["object_known"]),
        drifts=_number(body["drifts"]),
        last_drift=_text(body["last_drift"]),
        conntrack_full=conntrack_full(body),
        probes=_probes(body["probes"]),
    )


def listed(body: Mapping[str, Any]) -> Listed | LeftOut | None:
    """Of the answer as a whole: what its source knows of a pod that the agent does not."""
    reason, path = _maybe(body["left_out"]), _maybe(body["listed_at"])
    if reason is not None:
        return LeftOut(reason)
    return None if path is None else Listed(path)


def proofs(body: Mapping[str, Any]) -> tuple[Proved, ...] | Unknown:
    """Of a pod as `headgate pods` shows it."""
    taken = body["proofs"]
    if taken is None:
        return Unknown(f"none was taken yet: the pod is {_text(body['state'])}")
    return tuple(
        Proved(_text(name), _text(proof["result"]), _text(proof["reason"])) for name, proof in dict(taken).items()
    )


def conntrack_full(body: Mapping[str, Any]) -> bool:
    """Of the same."""
    return _flag(body["conntrack_full"])


def _probes(told: Mapping[str, Any] | None) -> Probes | None:
    if told is None:
        return None
    paths = (
        ProbePath(
            _text(one["address"]), _text(one["status"]), _flag(one["fails"]), _text(one["reason"]), _text(one["remedy"])
        )
        for one in told["paths"]
    )
    return Probes(_flag(told["listed"]), tuple(paths))


def _wishes(body: Mapping[str, Any]) -> Wishes:
    origins = (
        Origin(
            _text(one["what"]),
            _text(one["key"]),
            _text(one["value"]),
            tuple((_text(key), _text(value)) for key, value in one["overruled"]),
        )
        for one in body["origins"]
    )
    noted = (f"{_text(one['key'])}: {_text(one['value'])}: {_text(one['reason'])}" for one in body["noted"])
    return Wishes(_text(body["error"]), tuple(origins), tuple(noted))


def _difference(body: Mapping[str, Any]) -> Difference | Unknown:
    if "unread" in body:
        return Unknown(_text(body["unread"]))
    return Difference(_texts(body["changes"]), _texts(body["foreign"]))


# ── The proxy's ────────────────────────────────────────────────────────────────────────────────────────────────────
def served(body: Any, name: str, uid: str | None) -> Served | None:
    """Of GET /pods: by uid where it is known, else by NAMESPACE/NAME; None for a pod that the proxy does not know."""
    for one in body:
        mine = one["uid"] == uid if uid is not None else f"{one['namespace']}/{one['name']}" == name
        if mine:
            workers = tuple(_number(worker) for worker in one.get("workers", ()))
            return Served(_text(one["state"]), _text(one.get("reason", "")), workers)
    return None


def proxy(body: Mapping[str, Any]) -> Proxy:
    """Of GET /policy; whom it serves is another question's."""
    return Proxy(
        None,
        None if body["generation"] is None else _number(body["generation"]),
        tuple(None if generation is None else _number(generation) for generation in body["in_force"]),
        tuple(Rejection(_text(one["object"]), _text(one["text"])) for one in body["rejections"]),
    )


# ── Types ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _maybe(value: object) -> str | None:
    return None if value is None else _text(value)


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list")
    return tuple(_text(value) for value in values)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return value
