"""Who may do what: users by token or certificate, and RBAC over the roles that the store holds.

After plugin/pkg/auth/authorizer/rbac and apiserver/pkg/endpoints/handlers/responsewriters/errors.go.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.kube.asked import Asked
from tests.kube.refusals import Refused
from tests.kube.store import Store

_RBAC: Final = "rbac.authorization.k8s.io"
_PUBLIC: Final = frozenset(("/version", "/version/", "/healthz", "/livez", "/readyz"))
ANONYMOUS: Final = "system:anonymous"


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def info(self) -> dict[str, Any]:
        """authentication/v1 UserInfo, as an AdmissionReview has it."""
        extra = {"extra": {name: list(values) for name, values in self.extra.items()}} if self.extra else {}
        return {"username": self.name, "groups": list(self.groups), **extra}


ADMIN: Final = User("kubernetes-admin", ("system:masters", "system:authenticated"))
"""Whoever asks, as long as nobody said that users are to be told apart."""


def service_account(namespace: str, name: str, **extra: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    told = {f"authentication.kubernetes.io/{key.replace('_', '-')}": (value,) for key, value in extra.items()}
    return User(f"system:serviceaccount:{namespace}:{name}", groups, told)


def permitted(store: Store, user: User, asked: Asked) -> bool:
    if "system:masters" in user.groups or _is_everybodys(user, asked):
        return True
    return any(_covers(rule, asked) for rule in _rules(store, user, asked.namespace))


def _is_everybodys(user: User, asked: Asked) -> bool:
    """plugin/pkg/auth/authorizer/rbac/bootstrappolicy: public-info-viewer, discovery, basic-user."""
    if asked.verb == "get" and not asked.resource and asked.path in _PUBLIC:
        return True
    if "system:authenticated" not in user.groups:
        return False
    if asked.group == "authorization.k8s.io":
        return asked.verb == "create" and asked.resource == "selfsubjectaccessreviews"
    return asked.verb == "get" and not asked.resource and asked.path.split("/")[1] in ("api", "apis", "openapi")


def _rules(store: Store, user: User, namespace: str) -> Iterator[dict[str, Any]]:
    for (of, _), binding in _objects(store, "clusterrolebindings") + _objects(store, "rolebindings"):
        if of in ("", namespace) and any(_is(subject, user, of) for subject in binding.get("subjects") or ()):
            wanted = binding["roleRef"]
            plural, within = ("clusterroles", "") if wanted["kind"] == "ClusterRole" else ("roles", of)
            for key, role in _objects(store, plural):
                if key == (within, wanted["name"]):
                    yield from role.get("rules") or ()


def _objects(store: Store, plural: str) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    kept = store.resources.get((_RBAC, plural))
    return [] if kept is None else list(kept.objects.items())


def _is(subject: dict[str, Any], user: User, namespace: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user.name == f"system:serviceaccount:{subject.get('namespace') or namespace}:{subject['name']}"
    return subject["name"] == user.name if subject["kind"] == "User" else subject["name"] in user.groups


def _covers(rule: dict[str, Any], asked: Asked) -> bool:
    if not _has(rule.get("verbs"), asked.verb):
        return False
    if not asked.resource:
        paths = rule.get("nonResourceURLs") or ()
        return any(asked.path == path or (path.endswith("*") and asked.path.startswith(path[:-1])) for path in paths)
    names = rule.get("resourceNames") or ()
    wanted = {asked.with_subresource, f"*/{asked.subresource}" if asked.subresource else asked.resource, "*"}
    return (
        _has(rule.get("apiGroups"), asked.group)
        and bool(wanted & set(rule.get("resources") or ()))
        and (not names or asked.name in names)
    )


def _has(listed: list[str] | None, wanted: str) -> bool:
    return bool(listed) and (wanted in listed or "*" in listed)  # type: ignore[operator]


def refusal(user: User, asked: Asked, code: int = 403, retry_after_s: int = 0) -> Refused:
    """In the words of a real one: the agent tells an operator which rule is missing by them."""
    if code != 403:
        words = {401: ("Unauthorized", "Unauthorized"), 404: ("NotFound", "the server could not find the requested " +
                 "resource"), 429: ("TooManyRequests", "the server has received too many requests and has asked us to "
                 "try again later")}  # fmt: skip
        reason, said = words.get(code, ("InternalError", "Internal error occurred: as the test wishes"))
        return Refused(code, reason, said, retry_after_s=retry_after_s)
    if not asked.resource:
        return Refused(403, "Forbidden", f"forbidden: User {_quoted(user.name)} cannot {asked.verb} path "
                       f"{_quoted(asked.path)}", {})  # fmt: skip
    kind = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    named = f" {_quoted(asked.name)}" if asked.name else ""
    where = f"in the namespace {_quoted(asked.namespace)}" if asked.namespace else "at the cluster scope"
    said = f"{kind}{named} is forbidden: User {_quoted(user.name)} cannot {asked.verb} resource "
    said += f"{_quoted(asked.with_subresource)} in API group {_quoted(asked.group)} {where}"
    details = {"name": asked.name, "group": asked.group, "kind": asked.resource}
    return Refused(403, "Forbidden", said, {key: value for key, value in details.items() if value}, retry_after_s)


def _quoted(text: str) -> str:
    return json.dumps(text)
