"""Whether a pod may be deleted so that another one takes its place. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_ENDS_WITH_IT: Final = frozenset({"Node", "Job"})
"""Controllers that do not simply make another one: a static pod's is its kubelet, and of a Job a deleted pod counts as
failed (batch/v1: backoffLimit)."""


@dataclass(frozen=True, slots=True)
class Replaceable:
    """`owner`: the uid of its controller. `preconditions`: of metav1.DeleteOptions; that it is still as it was read."""

    owner: str
    preconditions: Mapping[str, str]


def replaceable(body: Mapping[str, Any], uid: str) -> Replaceable | str:
    """Of a Pod just read. Else why not, in an operator's words."""
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("uid") != uid:
        return "another pod has its name"
    if metadata.get("deletionTimestamp"):
        return "it is being deleted"
    listed = metadata.get("ownerReferences")
    owners = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    owner = next((one for one in owners if one.get("controller") is True), None)
    if owner is None or not owner.get("uid"):
        return "it has no controller that would replace it"
    if owner.get("kind") in _ENDS_WITH_IT:
        return f"its controller is a {owner['kind']}, which would not simply replace it"
    version = str(metadata.get("resourceVersion") or "")
    return Replaceable(str(owner["uid"]), {"uid": uid, "resourceVersion": version})
