"""Which VirtualService rules a host, and which labels a subset stands for."""

from collections.abc import Iterable
from dataclasses import dataclass

from proxy.config.istio import full_host
from proxy.config.objects import Admitted, DestinationRule, ObjectKey, RefusedRoute, VirtualService
from proxy.model.snapshot import Rejection

Route = VirtualService | RefusedRoute


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The route object in force for each host; `wildcards` from the longest (most specific) to `*`."""

    exact: dict[str, Route]
    wildcards: tuple[tuple[str, Route], ...]
    rejections: tuple[Rejection, ...]

    def rules(self, host: str) -> Route | None:
        found = self.exact.get(host)
        if found is not None:
            return found
        return next((route for suffix, route in self.wildcards if host.endswith(suffix)), None)


def route_table(routes: Iterable[tuple[Route, str]], known_hosts: frozenset[str]) -> RouteTable:
    """Settle who rules each host; routes come with their sources.

    Several objects for one host are never merged: the oldest wins, as for Istio's sidecars, and the others are
    reported. A refused one competes too, or repairing it would move the traffic of another. A host that no Service has
    is reported: hosts of other kinds are not routed by this version.
    """
    exact: dict[str, Route] = {}
    wildcards: dict[str, Route] = {}
    rejections = []
    for route, source in sorted(routes, key=lambda pair: pair[0].age.order()):
        for host in route.hosts:
            table, name = (wildcards, host[1:]) if host.startswith("*") else (exact, host)
            winner = table.setdefault(name, route)
            if isinstance(route, RefusedRoute):
                continue
            if winner is not route:
                rejections.append(_loser(route.key, host, winner.key, source))
            elif table is exact and host not in known_hosts:
                rejections.append(_unknown_host(route.key, host, source))
    ordered = tuple(sorted(wildcards.items(), key=lambda item: (-len(item[0]), item[0])))
    return RouteTable(exact, ordered, tuple(rejections))


def with_newer(table: RouteTable, newer: Iterable[tuple[Admitted | None, Admitted | None]]) -> RouteTable | None:
    """The table with newer versions of routes, where nothing else about them changed: the same hosts and age, nobody
    to compete with. None where it must be settled anew."""
    if table.rejections:
        return None
    exact = table.exact.copy()
    for before, after in newer:
        old, new = before and before.value, after and after.value
        if not isinstance(old, VirtualService) or not isinstance(new, VirtualService):
            return None
        if (old.hosts, old.age) != (new.hosts, new.age) or any(exact.get(host) is not old for host in old.hosts):
            return None
        exact.update(dict.fromkeys(new.hosts, new))
    return RouteTable(exact, table.wildcards, ())


def _loser(key: ObjectKey, host: str, winner: ObjectKey, source: str) -> Rejection:
    reason = f"host {host} is ruled by {winner}, which is older or first by name; routes of one host are not merged"
    return Rejection(str(key), "spec.hosts", reason, remedy="put all routes of a host into one object", source=source)


def _unknown_host(key: ObjectKey, host: str, source: str) -> Rejection:
    return Rejection(
        str(key), "spec.hosts", f"no Service has the host {host}: nothing is routed", remedy=hint(host), source=source
    )


def hint(host: str) -> str:
    """What to do about a host that no Service has."""
    name, _, namespace = host.partition(".")
    if namespace and "." not in namespace:
        return f"a name with a dot is taken as complete: write {full_host(name, namespace)}"
    return "create the Service or correct the name"


@dataclass(frozen=True, slots=True)
class SubsetTable:
    """Labels of each subset, by host and name; `broken` tells of rejected DestinationRules by host."""

    labels: dict[str, dict[str, tuple[tuple[str, str], ...]]]
    broken: dict[str, str]
    rejections: tuple[Rejection, ...]


def subset_table(rules: Iterable[Admitted]) -> SubsetTable:
    """Subsets of all DestinationRules. Several rules for one host add up, as in Istio; a subset that two of them define
    belongs to the older, and the other is reported."""
    labels: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {}
    broken: dict[str, str] = {}
    rejections = []
    good: list[tuple[DestinationRule, str]] = []
    for admitted in rules:
        if isinstance(admitted.value, DestinationRule):
            good.append((admitted.value, admitted.raw.source))
        elif (host := _host_of(admitted)) is not None:
            broken[host] = str(admitted.raw.key)
    for rule, source in sorted(good, key=lambda pair: pair[0].age.order()):
        defined = labels.setdefault(rule.host, {})
        for subset in rule.subsets:
            if subset.name in defined:
                reason = f"subset {subset.name} of {rule.host} is defined by an older DestinationRule, which counts"
                rejections.append(Rejection(str(rule.key), "spec.subsets", reason, remedy="remove one", source=source))
            else:
                defined[subset.name] = subset.labels
    return SubsetTable(labels, broken, tuple(rejections))


def _host_of(admitted: Admitted) -> str | None:
    spec = admitted.raw.body.get("spec")
    host = spec.get("host") if isinstance(spec, dict) else None
    return full_host(host, admitted.raw.key.namespace) if isinstance(host, str) else None
