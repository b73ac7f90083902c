"""Kinds that come and go with CustomResourceDefinitions."""

import copy

from tests.kube.resources import Body, Kept
from tests.kube.store import Store, now


class Crds:
    """`follow` after every change. Of a kind the version that is stored is served; schemas are not looked at."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._served: dict[str, Kept] = {}

    def follow(self) -> None:
        definitions = self._store.resources.get(("apiextensions.k8s.io", "customresourcedefinitions"))
        if definitions is None:
            return
        there = {name: body for (_, name), body in definitions.objects.items()}
        for name, body in there.items():
            if name not in self._served:
                self._served[name] = self._store.serve(_kept(body))
                self._store.replace(definitions, "", _established(body))
        for name in self._served.keys() - there.keys():
            gone = self._served.pop(name)
            for namespace, one in list(gone.objects):
                self._store.delete(gone, namespace, one)
            del self._store.resources[gone.group, gone.plural]


def _kept(body: Body) -> Kept:
    spec = body["spec"]
    stored = next(version for version in spec["versions"] if version["storage"])
    names, namespaced = spec["names"], spec["scope"] == "Namespaced"
    has_status = "status" in (stored.get("subresources") or {})
    return Kept(spec["group"], stored["name"], names["kind"], names["plural"], namespaced, True, has_status)


def _established(body: Body) -> Body:
    made = copy.deepcopy(body)
    kinds = ("NamesAccepted", "Established")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": now()} for kind in kinds]
    made["status"] = {"conditions": conditions, "acceptedNames": made["spec"]["names"]}
    return made
