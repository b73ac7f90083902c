"""Kinds by the path that the API server has them under. Values."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Resource:
    """`versions`: those that are understood here, the best first; the server's first of them is asked for. `group` is
    empty for core. `plural` as in the path."""

    group: str
    versions: tuple[str, ...]
    kind: str
    plural: str

    def path(self, version: str, namespace: str = "") -> str:
        """Of all namespaces, or of one."""
        root = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    def __str__(self) -> str:
        """As RBAC and `kubectl get` have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a resource is asked for, in the words of its query parameters; empty for all."""

    label_selector: str = ""
    field_selector: str = ""
    namespace: str = ""

    def parameters(self) -> dict[str, str]:
        wanted = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in wanted.items() if value}


ALL: Final = Selection()
