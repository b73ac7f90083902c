"""What an API server says of itself: version, groups, resources. The aggregated form is beyond this."""

from typing import Any, Final

from tests.kube.refusals import no_such_path
from tests.kube.resources import Kept
from tests.kube.store import Store

Document = dict[str, Any]

VERSION: Final = {"major": "1", "minor": "34", "gitVersion": "v1.34.4", "platform": "linux/amd64"}
"""As tests/apiserver/module has it."""
_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def told(store: Store, path: str) -> Document | str:
    """Text for what is no document. Raises Refused 404."""
    parts = path.strip("/").split("/")
    if path in ("/version", "/version/"):
        return {**VERSION, "gitTreeState": "clean"}
    if parts[0] in ("healthz", "livez", "readyz"):
        return "ok"
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if parts[0] == "api" and len(parts) == 2:
        return _resources(store, "", parts[1])
    if parts[0] != "apis" or len(parts) > 3:
        raise no_such_path()
    if len(parts) == 1:
        groups = sorted({group for group, _ in store.resources if group})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(store, group) for group in groups]}
    if len(parts) == 2:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(store, parts[1])}
    return _resources(store, parts[1], parts[2])


def _group(store: Store, group: str) -> Document:
    versions = sorted({kept.version for (of, _), kept in store.resources.items() if of == group})
    if not versions:
        raise no_such_path(False)
    named = [{"groupVersion": f"{group}/{one}", "version": one} for one in versions]
    return {"name": group, "versions": named, "preferredVersion": named[0]}


def _resources(store: Store, group: str, version: str) -> Document:
    here = [kept for (of, _), kept in store.resources.items() if of == group and kept.version == version]
    if not here:
        raise no_such_path(any(of == group for of, _ in store.resources))
    version = f"{group}/{version}" if group else version
    listed = [entry for kept in here for entry in _entries(kept)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}


def _entries(kept: Kept) -> list[Document]:
    common = {"namespaced": kept.namespaced, "kind": kept.kind}
    entries = [{"name": kept.plural, "singularName": kept.kind.lower(), **common, "verbs": _VERBS}]
    if kept.has_status:
        status = {"name": f"{kept.plural}/status", "singularName": "", **common, "verbs": ["get", "patch", "update"]}
        entries.append(status)
    return entries
