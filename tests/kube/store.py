"""What an API server remembers: objects by resource, a version for each change, and some history of them.

What is put here by a test's own hand is taken as it is; what comes over HTTP goes through `tests.kube.writing`.
"""

import copy
import itertools
from bisect import bisect_right
from datetime import UTC, datetime

from tests.kube.refusals import already_exists, conflict
from tests.kube.resources import Body, Change, Kept, Key

__all__ = ["Body", "Change", "Kept", "Store"]


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
        """Raises Refused 409."""
        key = (namespace, body["metadata"]["name"])
        if key in kept.objects:
            raise already_exists(kept, key[1])
        return self._put(kept, key, self.born(kept, namespace, body), "ADDED", None)

    def born(self, kept: Kept, namespace: str, body: Body) -> Body:
        """What creating would make of it, but for the version; nothing is kept."""
        made = copy.deepcopy(body)
        metadata = made["metadata"]
        metadata.setdefault("uid", f"00000000-0000-0000-0000-{next(self._uids):012d}")  # a test may know it
        metadata.setdefault("creationTimestamp", now())
        if kept.has_generation:
            metadata.setdefault("generation", 1)
        if namespace:
            metadata["namespace"] = namespace
        return {"apiVersion": kept.api_version, "kind": kept.kind, **made}

    def replace(self, kept: Kept, namespace: str, body: Body) -> Body:
        """Raises KeyError where there is none, Refused 409 for another version than the present one. What changes
        nothing is no change."""
        key = (namespace, body["metadata"]["name"])
        before = kept.objects[key]
        asked = body["metadata"].get("resourceVersion")
        if asked and asked != before["metadata"]["resourceVersion"]:
            raise conflict(kept, key[1])
        made = copy.deepcopy(body) | {"apiVersion": kept.api_version, "kind": kept.kind}
        metadata, was = made["metadata"], before["metadata"]
        metadata |= {name: was[name] for name in ("uid", "creationTimestamp", "resourceVersion") if name in was}
        if namespace:
            metadata["namespace"] = namespace
        if kept.has_generation:
            metadata["generation"] = was.get("generation", 1) + (wanted(made) != wanted(before))
        return before if made == before else self._put(kept, key, made, "MODIFIED", before)

    def delete(self, kept: Kept, namespace: str, name: str) -> Body:
        """At once, whatever would hold it. Raises KeyError where there is none."""
        before = kept.objects.pop((namespace, name))
        body = copy.deepcopy(before)
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        kept.history.append(Change(self.version, "DELETED", body, before))
        return body

    def compact(self) -> None:
        """As etcd does every five minutes: who is behind now must list again."""
        for kept in self.resources.values():
            kept.history.clear()
            kept.forgotten = self.version

    def since(self, kept: Kept, version: int) -> list[Change]:
        return kept.history[bisect_right(kept.history, version, key=lambda change: change.version) :]

    def _put(self, kept: Kept, key: Key, body: Body, what: str, before: Body | None) -> Body:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        kept.objects[key] = body
        kept.history.append(Change(self.version, what, body, before))
        return body


def wanted(body: Body) -> Body:
    """What `metadata.generation` counts the changes of."""
    return {key: value for key, value in body.items() if key not in ("metadata", "status")}


def now() -> str:
    """RFC 3339 in whole seconds: metav1.Time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
