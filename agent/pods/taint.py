"""A node's taint that keeps pods away until the agent is ready. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class InvalidTaint(ValueError):
    """What was given, and what can be."""


@dataclass(frozen=True, slots=True)
class Taint:
    """Of a node's taints those with this key and effect, whatever their value: as tolerations with `Exists`."""

    key: str
    effect: str

    @classmethod
    def read(cls, text: str) -> Self:
        """`KEY:EFFECT`. Raises InvalidTaint."""
        key, _, effect = text.rpartition(":")
        if not _KEY.fullmatch(key) or effect not in _EFFECTS:
            raise InvalidTaint(f"give it as KEY:EFFECT, EFFECT one of {', '.join(_EFFECTS)}")
        return cls(key, effect)

    def __str__(self) -> str:
        return f"{self.key}:{self.effect}"

    def is_one(self, found: object) -> bool:
        return isinstance(found, Mapping) and (found.get("key"), found.get("effect")) == (self.key, self.effect)


def without(taint: Taint, node: Mapping[str, Any]) -> dict[str, Any] | None:
    """The merge patch that takes it from this Node, as it is now and no other; None where it has none."""
    spec, metadata = node.get("spec"), node.get("metadata")
    found = spec.get("taints") if isinstance(spec, Mapping) else None
    if not isinstance(found, Sequence) or isinstance(found, str) or not any(map(taint.is_one, found)):
        return None
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    rest = [one for one in found if not taint.is_one(one)]
    return {"metadata": {"resourceVersion": version}, "spec": {"taints": rest or None}}
