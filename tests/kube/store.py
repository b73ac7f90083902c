"""What an API server remembers: objects by resource, a version for each change, and some history of them."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    version: int
    what: str
    body: Body


@dataclass
class Kept:
    """One resource. `forgotten`: versions up to this one are no longer in the history (410 for who asks)."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    objects: dict[Key, Body] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    forgotten: int = 0

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Conflict(Exception):
    """409: the object is there already, or was changed meanwhile."""


class Store:
    """`version` counts over all resources, as etcd's revision does."""

    def __init__(self, first_version: int = 1000) -> None:
        self.version = first_version
        self.resources: dict[tuple[str, str], Kept] = {}
        self._uids = itertools.count(1)

    def serve(self, kept: Kept) -> Kept:
        self.resources[kept.group, kept.plural] = kept
        kept.forgotten = self.version
        return kept

    def create(self, kept: Kept, namespace: str, body: Body) -> Body:
        key = (namespace, body["metadata"]["name"])
        if key in kept.objects:
            raise Conflict(f'{kept.plural} "{key[1]}" already exists')
        made = copy.deepcopy(body)
        made["metadata"].setdefault("uid", f"00000000-0000-0000-0000-{next(self._uids):012d}")  # a test may know it
        if namespace:
            made["metadata"]["namespace"] = namespace
        return self._put(kept, key, made, "ADDED")

    def replace(self, kept: Kept, namespace: str, body: Body) -> Body:
        """Raises KeyError where there is none."""
        key = (namespace, body["metadata"]["name"])
        before = kept.objects[key]
        asked = body["metadata"].get("resourceVersion")
        if asked and asked != before["metadata"]["resourceVersion"]:
            raise Conflict(f'Operation cannot be fulfilled on {kept.plural} "{key[1]}": the object has been modified')
        made = copy.deepcopy(body)
        made["metadata"] |= {"uid": before["metadata"]["uid"]}
        if namespace:
            made["metadata"]["namespace"] = namespace
        return self._put(kept, key, made, "MODIFIED")

    def delete(self, kept: Kept, namespace: str, name: str) -> Body:
        """Raises KeyError where there is none."""
        body = copy.deepcopy(kept.objects.pop((namespace, name)))
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        kept.history.append(Change(self.version, "DELETED", body))
        return body

    def compact(self) -> None:
        """As etcd does every five minutes: who is behind now must list again."""
        for kept in self.resources.values():
            kept.history.clear()
            kept.forgotten = self.version

    def since(self, kept: Kept, version: int) -> Iterator[Change]:
        return (change for change in kept.history if change.version > version)

    def _put(self, kept: Kept, key: Key, body: Body, what: str) -> Body:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        body |= {"apiVersion": kept.api_version, "kind": kept.kind}
        kept.objects[key] = body
        kept.history.append(Change(self.version, what, body))
        return body
