"""What a request asks for, read from its method and path: apiserver/pkg/endpoints/request/requestinfo.go."""

from dataclasses import dataclass
from typing import Final

_OF_A_NAMESPACE: Final = ("status", "finalize")
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "DELETE": "delete", "HEAD": "get"}


@dataclass(frozen=True)
class Asked:
    """`resource` empty: no resource, but `path`. `rest`: of a proxied path."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""

    @property
    def with_subresource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def asked_for(method: str, path: str, query: dict[str, str]) -> Asked:
    parts = path.strip("/").split("/")
    verb = _VERBS.get(method, method.lower())
    root = {"api": 2, "apis": 3}.get(parts[0], len(parts))
    if len(parts) <= root:
        return Asked(verb, path)
    group, version = ("", parts[1]) if root == 2 else (parts[1], parts[2])
    parts, namespace = parts[root:], ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]  # also of the namespace itself: RBAC asks for it there
        if len(parts) > 2 and parts[2] not in _OF_A_NAMESPACE:
            parts = parts[2:]
    name, subresource = (parts[1] if len(parts) > 1 else ""), (parts[2] if len(parts) > 2 else "")
    if not name and verb in ("get", "delete"):
        watched = query.get("watch") in ("1", "true")
        verb = "deletecollection" if verb == "delete" else "watch" if watched else "list"
    return Asked(verb, path, group, version, parts[0], namespace, name, subresource, "/".join(parts[3:]))
