"""Objects as small as a real server takes them."""

from typing import Any

Body = dict[str, Any]


def pods(namespace: str, name: str = "", subresource: str = "") -> str:
    """Their path."""
    return "/".join(part for part in (f"/api/v1/namespaces/{namespace}/pods", name, subresource) if part)


def maps(namespace: str, name: str = "") -> str:
    return "/".join(part for part in (f"/api/v1/namespaces/{namespace}/configmaps", name) if part)


def leases(namespace: str, name: str = "") -> str:
    root = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    return f"{root}/{name}" if name else root


def pod(name: str = "web", node: str = "", labels: dict[str, str] | None = None, **metadata: Any) -> Body:
    named = {"name": name} if name else {}
    spec: Body = {"containers": [{"name": "one", "image": "one"}], **({"nodeName": node} if node else {})}
    return {"metadata": {**named, "labels": labels or {}, **metadata}, "spec": spec}


def config(name: str, value: str = "a", labels: dict[str, str] | None = None) -> Body:
    """A ConfigMap."""
    return {"metadata": {"name": name, "labels": labels or {}}, "data": {"value": value}}
