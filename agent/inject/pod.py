"""A pod, or a workload's template of one → what is to be changed in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.inject import status
from agent.inject.edits import Edit, Insert, Path, Put, Restore, Take, applied, part
from agent.inject.errors import Refused
from agent.inject.fitting import check_room, check_shape, left_out
from agent.inject.steering import arguments
from agent.inject.template import OUR_CONTAINERS, OUR_VOLUMES, Template

_ENDING = ("Never", "OnFailure")


@dataclass(frozen=True, slots=True)
class Injection:
    """`skipped`: why it stays as it is; empty with no edits: it is as it should be already."""

    edits: tuple[Edit, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class _Ours:
    init_first: tuple[dict[str, Any], ...]
    init_last: tuple[dict[str, Any], ...]
    beside: tuple[dict[str, Any], ...]
    volumes: tuple[dict[str, Any], ...]


def injected(pod: Mapping[str, Any], template: Template, spelled: Mapping[Path, str] | None = None) -> Injection:
    """`pod`: metadata and spec, of a Pod or a PodTemplateSpec. `spelled`: by path (status.PARTS), how a value that is
    empty is written where it comes from.

    What was added before is replaced where it is not as `template` has it; where it is, nothing is changed. Raises
    Refused.
    """
    check_shape(pod)
    before = uninjected(pod)
    bare = applied(pod, before.edits)
    reason = left_out(bare)
    if reason:
        return Injection(skipped=reason)
    check_room(bare)
    ours, warnings = _ours(bare, template)
    if before.edits and _is_there(pod, ours):
        return Injection(warnings=warnings)
    return Injection((*before.edits, *_added(bare, ours, spelled or {})), warnings)


def uninjected(pod: Mapping[str, Any]) -> Injection:
    """What takes ours out; parts that were made for it go, too. Raises Refused."""
    check_shape(pod)
    if not status.has_status(pod):
        return Injection(skipped="has nothing that headgate added")
    made = status.read(pod)
    lists = (("initContainers", OUR_CONTAINERS), ("containers", OUR_CONTAINERS), ("volumes", OUR_VOLUMES))
    edits = [edit for key, names in lists for edit in _without(pod, key, names, made)]
    return Injection((*edits, _without_status(pod, made)))


# ── In ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _ours(pod: Mapping[str, Any], template: Template) -> tuple[_Ours, tuple[str, ...]]:
    """Native: ours come first, so that the application's own init containers have a network, and the proxy in it. Else
    the rules come last: until a container beside the application runs, nobody would listen where they lead to."""
    steering, warnings = arguments(part(pod, "metadata", "annotations") or {})
    init, proxy = template.init(steering), template.proxy()
    if template.native:
        return _Ours((init, proxy), (), (), template.volumes()), warnings
    ends = part(pod, "spec", "restartPolicy")
    if ends in _ENDING:
        reason = f"{ends}: the pod would never end, because its proxy does not"
        raise Refused("spec.restartPolicy", f"{reason}; needs native sidecars (Kubernetes 1.29)")
    return _Ours((), (init,), (proxy,), template.volumes()), warnings


def _added(pod: Mapping[str, Any], ours: _Ours, spelled: Mapping[Path, str]) -> Iterator[Edit]:
    made: status.Made = {}
    spec = pod["spec"]
    for key, first, last in (
        ("initContainers", ours.init_first, ours.init_last),
        ("containers", (), ours.beside),
        ("volumes", (), ours.volumes),
    ):
        if not first and not last:
            continue
        if not spec.get(key):
            made[("spec", key)] = _was(spec, key, spelled.get(("spec", key)))
            yield Put(("spec",), key, [*first, *last])
        else:
            yield Insert(("spec", key), first or last, first=bool(first))
    metadata = pod.get("metadata")
    if metadata and metadata.get("annotations"):
        yield Put(("metadata", "annotations"), status.INJECTED, status.written(made))
    elif metadata:
        made[("metadata", "annotations")] = _was(metadata, "annotations", spelled.get(("metadata", "annotations")))
        yield Put(("metadata",), "annotations", {status.INJECTED: status.written(made)})
    else:
        made[("metadata",)] = _was(pod, "metadata", spelled.get(("metadata",)))
        yield Put((), "metadata", {"annotations": {status.INJECTED: status.written(made)}})


def _was(of: Mapping[str, Any], key: str, spelled: str | None) -> str | None:
    return status.spelling(of[key], spelled) if key in of else None


# ── Out ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _without(pod: Mapping[str, Any], key: str, names: frozenset[str], made: status.Made) -> Iterator[Edit]:
    listed = part(pod, "spec", key) or []
    found = tuple(index for index, item in enumerate(listed) if item.get("name") in names)
    if found and len(found) == len(listed):
        yield _emptied(("spec",), key, made, " []")
    elif found:
        yield Take(("spec", key), found)


def _without_status(pod: Mapping[str, Any], made: status.Made) -> Edit:
    metadata = pod["metadata"]
    if len(metadata["annotations"]) > 1:
        return Take(("metadata", "annotations"), (status.INJECTED,))
    if ("metadata",) in made and len(metadata) == 1:
        return _emptied((), "metadata", made, " {}")
    return _emptied(("metadata",), "annotations", made, " {}")


def _emptied(path: Path, key: str, made: status.Made, otherwise: str) -> Edit:
    spelled = made.get((*path, key), otherwise)
    return Take(path, (key,)) if spelled is None else Restore(path, key, spelled)


# ── As it should be ────────────────────────────────────────────────────────────────────────────────────────────────
def _is_there(pod: Mapping[str, Any], ours: _Ours) -> bool:
    """An API server has added defaults in the meantime, and other webhooks their own containers before ours."""
    spec = pod["spec"]
    init = (*ours.init_first, *ours.init_last)
    return (
        _holds(spec.get("initContainers"), init, OUR_CONTAINERS)
        and _holds(spec.get("containers"), ours.beside, OUR_CONTAINERS)
        and _holds(spec.get("volumes"), ours.volumes, OUR_VOLUMES)
    )


def _holds(listed: Any, wanted: tuple[dict[str, Any], ...], names: frozenset[str]) -> bool:
    found = [item for item in listed or [] if item.get("name") in names]
    return [item["name"] for item in found] == [item["name"] for item in wanted] and all(
        _covers(item, one) for item, one in zip(found, wanted, strict=True)
    )


def _covers(found: Any, wanted: Any) -> bool:
    """Whether it says all that is wanted, and perhaps more: a list of texts must be the same, of mappings in one of
    mappings each must be there."""
    if isinstance(wanted, dict):
        return isinstance(found, Mapping) and all(
            key in found and _covers(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(found, list) and any(isinstance(one, dict) for one in wanted):
        return all(any(_covers(item, one) for item in found) for one in wanted)
    return bool(found == wanted)
