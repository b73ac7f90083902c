"""Kinds of a test's own, and such as others' CRDs would bring."""

import itertools
from dataclasses import dataclass
from typing import Any, Final

from tests.apiserver.caller import until
from tests.apiserver.servers import Server

_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Custom:
    group: str
    plural: str
    kind: str
    version: str = "v1"

    @property
    def name(self) -> str:
        return f"{self.plural}.{self.group}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        within = f"namespaces/{namespace}" if namespace else ""
        parts = (f"/apis/{self.group}/{self.version}", within, self.plural, name, subresource)
        return "/".join(part for part in parts if part)

    def definition(self, has_status: bool = True, scope: str = "Namespaced") -> dict[str, Any]:
        """Any object will do: what is broken in one is the reader's to find."""
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": self.version, "served": True, "storage": True, "schema": schema}
        names = {
            "plural": self.plural,
            "singular": self.kind.lower(),
            "kind": self.kind,
            "listKind": f"{self.kind}List",
        }
        # k8s.io and x-k8s.io are protected: a definition of theirs must say who approved it.
        annotations = {"api-approved.kubernetes.io": "unapproved, a test"} if self.group.endswith("k8s.io") else {}
        return {
            "metadata": {"name": self.name, "annotations": annotations},
            "spec": {
                "group": self.group,
                "names": names,
                "scope": scope,
                "versions": [{**version, **({"subresources": {"status": {}}} if has_status else {})}],
            },
        }

    def define(self, server: Server, has_status: bool = True, scope: str = "Namespaced") -> None:
        server.admin.made(_DEFINITIONS, self.definition(has_status, scope))
        until(lambda: server.admin.get(self.path()).status == 200, f"{self.name} is served")

    def forget(self, server: Server) -> None:
        assert server.admin.delete(f"{_DEFINITIONS}/{self.name}").status == 200
        until(lambda: server.admin.get(self.path()).status == 404, f"{self.name} is not served any more")


def custom(server: Server, kind: str, has_status: bool = True) -> Custom:
    """One that nobody else has."""
    made = Custom(f"g{next(_numbers)}.example.com", f"{kind.lower()}s", kind)
    made.define(server, has_status)
    return made
