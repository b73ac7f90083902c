"""What an API server does with a write before it keeps it: names, conditions, subresources, graceful ends.

After apiserver/pkg/registry/rest/{create,update,delete}.go and the strategies of pkg/registry.
"""

import copy
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.kube.refusals import Refused, bad_request, conflict, forbidden, invalid, not_found, of_another, uid_condition
from tests.kube.resources import Body, Kept
from tests.kube.store import Store

_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"
"""apimachinery/pkg/util/rand: no vowels, no words."""
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_BY_PATH: Final = frozenset(("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"))
"""Their names may hold what a path segment may (path.ValidatePathSegmentName): colons, for one."""
_MADE_BY_UPDATE: Final = frozenset(("Event", "Lease", "LimitRange", "ClusterRole", "ClusterRoleBinding", "Role",
                                    "RoleBinding"))  # fmt: skip
"""AllowCreateOnUpdate."""
_ONLY_WITH_VERSION: Final = frozenset(("Lease", "MutatingWebhookConfiguration", "CustomResourceDefinition"))
"""Not AllowUnconditionalUpdate; neither any custom kind."""
GRACE_S: Final = 30
"""core/v1 defaults: terminationGracePeriodSeconds."""


@dataclass(frozen=True)
class DeleteOptions:
    grace_s: int | None = None
    uid: str = ""
    version: str = ""

    @classmethod
    def of(cls, body: Body, query: dict[str, str]) -> "DeleteOptions":
        conditions = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        return cls(
            None if grace is None else int(grace), conditions.get("uid", ""), conditions.get("resourceVersion", "")
        )


@dataclass
class Writing:
    """All methods raise Refused. `dry_run`: nothing is kept."""

    store: Store
    chance: random.Random = field(default_factory=lambda: random.Random(5))

    def prepared(self, kept: Kept, namespace: str, body: Any) -> Body:
        """A new object, named and in its namespace, as admission gets to see it."""
        made = _object(kept, body)
        metadata = made["metadata"]
        if not metadata.get("name") and (prefix := metadata.get("generateName")):
            metadata["name"] = prefix[:58] + "".join(self.chance.choice(_SUFFIX) for _ in range(5))
        if metadata.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if namespace:
            metadata["namespace"] = namespace
            self._has_namespace(kept, namespace, metadata.get("name", ""))
        for name in ("uid", "creationTimestamp", "deletionTimestamp", "generation", "selfLink"):
            metadata.pop(name, None)
        if metadata.pop("resourceVersion", ""):
            raise Refused(500, "", "resourceVersion should not be set on objects to be created")
        _start(kept, made)
        return made

    def create(self, kept: Kept, namespace: str, body: Body, dry_run: bool) -> Body:
        """`body`: prepared, and what admission made of it."""
        _validate(kept, body)
        if dry_run:
            return self.store.born(kept, namespace, body)
        return self.store.create(kept, namespace, body)

    def found(self, kept: Kept, namespace: str, name: str) -> Body:
        body = kept.objects.get((namespace, name))
        if body is None:
            raise not_found(kept, name)
        return body

    def update(self, kept: Kept, namespace: str, name: str, subresource: str, body: Any, dry_run: bool) -> Body:
        """PUT."""
        wanted = _object(kept, body)
        if wanted["metadata"].get("name") != name:
            said = f"the name of the object ({wanted['metadata'].get('name', '')}) does not match the name on the URL"
            raise bad_request(f"{said} ({name})")
        if (namespace, name) not in kept.objects and kept.kind in _MADE_BY_UPDATE:
            return self.create(kept, namespace, self.prepared(kept, namespace, wanted), dry_run)
        before = self.found(kept, namespace, name)
        asked = wanted["metadata"].get("uid") or before["metadata"]["uid"]
        if asked != before["metadata"]["uid"]:
            raise uid_condition(kept, name, asked, before["metadata"]["uid"])
        if not wanted["metadata"].get("resourceVersion") and (kept.custom or kept.kind in _ONLY_WITH_VERSION):
            why = "Invalid value: 0: must be specified for an update"
            raise invalid(kept, name, "metadata.resourceVersion", why)
        return self._replace(kept, before, wanted, subresource, dry_run)

    def patch(self, kept: Kept, before: Body, wanted: Body, subresource: str, dry_run: bool) -> Body:
        """`wanted`: `before` with the change in it. A uid in it is a condition, but one that is told as what cannot be
        changed."""
        name = before["metadata"]["name"]
        wanted["metadata"].setdefault("resourceVersion", before["metadata"]["resourceVersion"])
        if (asked := wanted["metadata"].get("uid", before["metadata"]["uid"])) != before["metadata"]["uid"]:
            raise invalid(kept, name, "metadata.uid", f'Invalid value: "{asked}": field is immutable')
        return self._replace(kept, before, wanted, subresource, dry_run)

    def _replace(self, kept: Kept, before: Body, wanted: Body, subresource: str, dry_run: bool) -> Body:
        name, namespace = before["metadata"]["name"], before["metadata"].get("namespace", "")
        version = wanted["metadata"].get("resourceVersion", "")
        if version and version != before["metadata"]["resourceVersion"]:
            raise conflict(kept, name)
        made = _part(kept, before, wanted, subresource)
        if dry_run:
            return made
        done = self.store.replace(kept, namespace, made)
        return self._ended(kept, done)

    def _ended(self, kept: Kept, body: Body) -> Body:
        """Gone, when it waited for the last finalizer only."""
        held = body["metadata"].get("finalizers") or (body.get("spec") or {}).get("finalizers")
        if not body["metadata"].get("deletionTimestamp") or held or body["metadata"].get("deletionGracePeriodSeconds"):
            return body
        return self.store.delete(kept, body["metadata"].get("namespace", ""), body["metadata"]["name"])

    def delete(self, kept: Kept, namespace: str, name: str, options: DeleteOptions, dry_run: bool) -> tuple[Body, bool]:
        """The object, and whether it is still there: told so, and left to who must end it."""
        before = self.found(kept, namespace, name)
        metadata = before["metadata"]
        if options.uid and options.uid != metadata["uid"]:
            raise of_another(kept, name, "UID", options.uid, metadata["uid"])
        if options.version and options.version != metadata["resourceVersion"]:
            raise of_another(kept, name, "ResourceVersion", options.version, metadata["resourceVersion"])
        grace_s = _grace_s(kept, before, options)
        held = metadata.get("finalizers") or kept.kind == "Namespace"
        if dry_run:
            return before, bool(held or grace_s)
        if not held and grace_s == 0:
            return self.store.delete(kept, namespace, name), False
        made = copy.deepcopy(before)
        if "deletionTimestamp" not in metadata or (grace_s < metadata.get("deletionGracePeriodSeconds", 0)):
            end = datetime.now(UTC) + timedelta(seconds=grace_s)
            made["metadata"]["deletionTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
            made["metadata"]["deletionGracePeriodSeconds"] = grace_s
        if kept.kind == "Namespace":
            made["metadata"].pop("deletionGracePeriodSeconds", None)
            made.setdefault("status", {})["phase"] = "Terminating"
        return self.store.replace(kept, namespace, made), True

    def bind(self, kept: Kept, namespace: str, name: str, binding: Body) -> None:
        """What a scheduler does; a pod is bound once."""
        made = copy.deepcopy(self.found(kept, namespace, name))
        if made["spec"].get("nodeName"):
            raise conflict(kept, name, f'pod {name} is already assigned to node "{made["spec"]["nodeName"]}"')
        made["spec"]["nodeName"] = binding["target"]["name"]
        self.store.replace(kept, namespace, made)

    def _has_namespace(self, kept: Kept, namespace: str, name: str) -> None:
        """Also one that a test put objects into without asking. A server without namespaces has all."""
        namespaces = self.store.resources.get(("", "namespaces"))
        if namespaces is None:
            return
        found = namespaces.objects.get(("", namespace))
        if found is None:
            if not any(of == namespace for other in self.store.resources.values() for of, _ in other.objects):
                raise not_found(namespaces, namespace)
        elif found["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(kept, name, why)


def _object(kept: Kept, body: Any) -> Body:
    if not isinstance(body, dict) or not isinstance(body.get("metadata", {}), dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kept.kind})")
    said = (body.get("apiVersion", kept.api_version), body.get("kind", kept.kind))
    if said != (kept.api_version, kept.kind):
        raise bad_request(f'{said[1]} in version "{said[0]}" cannot be handled as a {kept.kind}: unknown conversion')
    made: Body = copy.deepcopy(body)
    metadata = made.setdefault("metadata", {})
    for name in ("annotations", "finalizers", "labels", "ownerReferences"):
        if not metadata.get(name, True):
            del metadata[name]  # omitempty
    return {"apiVersion": kept.api_version, "kind": kept.kind, **made}


def _start(kept: Kept, made: Body) -> None:
    """What a new object has of its own: PrepareForCreate."""
    if kept.has_status:
        made.pop("status", None)
    if kept.kind == "Pod" and not kept.group:
        made["status"] = {"phase": "Pending"}
    if kept.kind == "Namespace":
        made.setdefault("spec", {})["finalizers"] = ["kubernetes"]
        made["status"] = {"phase": "Active"}
        made["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = made["metadata"].get("name", "")
    if kept.kind == "Secret":
        made.setdefault("type", "Opaque")


def _validate(kept: Kept, body: Body) -> None:
    name = body["metadata"].get("name", "")
    if not name:
        raise invalid(kept, "", "metadata.name", "Required value: name or generateName is required")
    if kept.kind not in _BY_PATH and (len(name) > 253 or not _SUBDOMAIN.fullmatch(name)):
        why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
        why += "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        raise invalid(kept, name, "metadata.name", f"Invalid value: \"{name}\": {why}'{_GO_SUBDOMAIN}')")
    if kept.kind == "Pod" and not kept.group and not (body.get("spec") or {}).get("containers"):
        raise invalid(kept, name, "spec.containers", "Required value")


_GO_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


def _part(kept: Kept, before: Body, wanted: Body, subresource: str) -> Body:
    """What of a write is taken: its status by /status only, and by that nothing else; PrepareForUpdate."""
    made = copy.deepcopy(wanted)
    metadata, was = made["metadata"], before["metadata"]
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "creationTimestamp", "generation", "managedFields"):
        metadata.pop(name, None)
        if name in was:
            metadata[name] = was[name]
    if subresource == "status":
        own = was if kept.custom else metadata
        if not kept.custom and "ownerReferences" in was:
            own["ownerReferences"] = was["ownerReferences"]
        kept_parts = {key: value for key, value in before.items() if key not in ("metadata", "status")}
        return {**kept_parts, "metadata": own, **({"status": made["status"]} if "status" in made else {})}
    if subresource == "finalize":
        return {**before, "spec": made.get("spec", {})}
    if kept.has_status:
        made.pop("status", None)
        if "status" in before:
            made["status"] = before["status"]
    return made


def _grace_s(kept: Kept, body: Body, options: DeleteOptions) -> int:
    """pkg/registry/core/pod/strategy.go: CheckGracefulDelete; no other kind has a grace."""
    if kept.kind != "Pod":
        return 0
    spec, phase = body.get("spec") or {}, (body.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    if options.grace_s is not None:
        return options.grace_s
    return int(spec.get("terminationGracePeriodSeconds", GRACE_S))


SUCCESS: Final[Body] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def deleted(kept: Kept, body: Body) -> Body:
    """What is told of an object that is gone at once."""
    details = {"name": body["metadata"]["name"], "kind": kept.plural, "uid": body["metadata"]["uid"]}
    if kept.group:
        details["group"] = kept.group
    return {**SUCCESS, "details": details}
