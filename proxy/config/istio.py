"""Istio's VirtualService and DestinationRule (networking.istio.io), decoded strictly: whatever this version does not
carry out rejects the object whole, so that no policy is half in force."""

import re
from ipaddress import ip_address
from typing import Final

from proxy.config.fields import LABEL_NAME, InvalidPolicy, Node
from proxy.config.objects import (
    Age,
    Destination,
    DestinationRule,
    HttpRoute,
    ObjectKey,
    RawObject,
    RefusedRoute,
    Subset,
    VirtualService,
)
from proxy.config.text import printable, quoted

CLUSTER_DOMAIN: Final = "svc.cluster.local"

_OBJECT_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_ROUTE_LATER: Final = frozenset(
    {"match", "redirect", "directResponse", "delegate", "rewrite", "timeout", "retries", "fault", "mirror", "mirrors"}
    | {"mirrorPercent", "mirror_percent", "mirrorPercentage", "corsPolicy", "headers"}
)
_DESTINATION_RULE_LATER: Final = frozenset({"trafficPolicy", "workloadSelector"})
"""Fields of Istio's API (networking/v1alpha3) that the full policy gives meaning to."""

_HOST: Final = re.compile(r"(\*|(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)")
_MAX_WEIGHT_SUM: Final = 2**32 - 1
"""Envoy's limit for the sum of a route's weights (config/route/v3 WeightedCluster, total_weight)."""


def full_host(host: str, namespace: str) -> str:
    """Istio's rule: a name without a dot is a Service in the rule's own namespace; any other is complete as it is
    (so `reviews.default` is not a Service; pilot/pkg/model, ResolveShortnameToFQDN)."""
    return host if "." in host or host.startswith("*") else f"{host}.{namespace}.{CLUSTER_DOMAIN}"


def decode_virtual_service(node: Node, raw: RawObject) -> VirtualService:
    """A VirtualService; raises InvalidPolicy.

    Bound to gateways only (`gateways` without `mesh`), it says nothing to pods: decoded with no hosts, the rest unread.
    """
    key, spec = raw.key, _spec(node)
    age = Age(raw.created, key.name, key.namespace)
    gateways = [item.text() for item in spec.each("gateways")]
    if gateways and "mesh" not in gateways:
        return VirtualService(key, age, (), ())
    spec.only(
        frozenset({"hosts", "gateways", "http", "exportTo"}),
        frozenset({"tls", "tcp"}),
    )
    _exported_to_all(spec)
    hosts = tuple(dict.fromkeys(_host(item, key.namespace) for item in spec.require("hosts").items()))
    if not hosts:
        raise spec.require("hosts").fail("must name at least one host")
    routes = tuple(_route(item, i, key) for i, item in enumerate(spec.require("http").items()))
    if not routes:
        raise spec.require("http").fail("must have at least one route")
    return VirtualService(key, age, hosts, routes)


def _route(node: Node, index: int, key: ObjectKey) -> HttpRoute:
    node.only(frozenset({"name", "route"}), _ROUTE_LATER)
    destinations = tuple(_destination(item, key.namespace) for item in node.require("route").items())
    route = node.require("route")
    if not destinations:
        raise route.fail("must have at least one destination")
    total = sum(destination.weight for destination in destinations)
    if len(destinations) > 1 and total == 0:
        raise route.fail("all weights are 0: no destination would get a request", "give one a weight")
    if total > _MAX_WEIGHT_SUM:
        raise route.fail(f"the weights sum up to {total}, more than {_MAX_WEIGHT_SUM}")
    name = node.get("name")
    label = f"http[{index}]" if name is None else printable(name.text())
    return HttpRoute(f"{key.namespace}/{key.name}/{label}", destinations)


def _destination(node: Node, namespace: str) -> Destination:
    node.only(frozenset({"destination", "weight"}), frozenset({"headers"}))
    target = node.require("destination")
    target.only(frozenset({"host", "subset", "port"}))
    host = target.require("host")
    name = _host(host, namespace)
    if name.startswith("*"):
        raise host.fail("a destination cannot be a wildcard", "name one Service")
    subset, port, weight = target.get("subset"), target.get("port"), node.get("weight")
    if port is not None:
        port.only(frozenset({"number"}))
    return Destination(
        host=name,
        subset="" if subset is None else subset.matching(LABEL_NAME, "a subset's name"),
        port=0 if port is None else port.require("number").whole(1, 65535),
        weight=0 if weight is None else weight.whole(0, 2**31 - 1),
    )


def decode_destination_rule(node: Node, raw: RawObject) -> DestinationRule:
    """A DestinationRule; raises InvalidPolicy.

    Istio lets one outside its Service's namespace act for the clients of that other namespace; policy is not yet
    chosen by client here, so such a rule is refused.
    """
    key, spec = raw.key, _spec(node)
    spec.only(frozenset({"host", "subsets", "exportTo"}), _DESTINATION_RULE_LATER)
    _exported_to_all(spec)
    field = spec.require("host")
    host = _host(field, key.namespace)
    if host.startswith("*"):
        raise field.fail("wildcard hosts are not supported by this version", "name one Service")
    if host.endswith("." + CLUSTER_DOMAIN) and not host.endswith(f".{key.namespace}.{CLUSTER_DOMAIN}"):
        raise field.fail(
            "a rule outside its Service's namespace is not supported by this version",
            "move the object to the namespace of the Service",
        )
    subsets: dict[str, Subset] = {}
    for item in spec.each("subsets"):
        item.only(frozenset({"name", "labels"}), frozenset({"trafficPolicy"}))
        name = item.require("name").matching(LABEL_NAME, "a subset's name")
        if name in subsets:
            raise item.fail(f"subset {name} is there twice", "remove one")
        labels = item.get("labels")
        subsets[name] = Subset(name, () if labels is None else labels.labels())
    return DestinationRule(key, Age(raw.created, key.name, key.namespace), host, tuple(subsets.values()))


def refused_route(raw: RawObject, invalid: InvalidPolicy) -> RefusedRoute:
    """What stands in for a VirtualService that cannot be taken: the hosts that can still be read from it.

    Fails closed: a route meant to keep requests from a destination must not vanish because of a typing error.
    """
    spec = raw.body.get("spec")
    listed = spec.get("hosts") if isinstance(spec, dict) else None
    gateways = spec.get("gateways") if isinstance(spec, dict) else None
    hosts: tuple[str, ...] = ()
    if isinstance(listed, list) and (not isinstance(gateways, list) or not gateways or "mesh" in gateways):
        texts = (host for host in listed if isinstance(host, str) and _HOST.fullmatch(host))
        hosts = tuple(dict.fromkeys(full_host(host, raw.key.namespace) for host in texts))
    age = Age(raw.created, raw.key.name, raw.key.namespace)
    return RefusedRoute(raw.key, age, hosts, f"{raw.key} is rejected: {invalid.field}: {invalid.reason}")


def _spec(node: Node) -> Node:
    node.only(_OBJECT_FIELDS)
    return node.require("spec")


def _exported_to_all(spec: Node) -> None:
    for item in spec.each("exportTo"):
        if item.text() != "*":
            raise item.fail("only * is supported by this version", "remove exportTo")


def _host(node: Node, namespace: str) -> str:
    text = node.text()
    try:
        ip_address(text)
    except ValueError:
        pass
    else:
        raise node.fail("must be a name, not an address", "name the Service that owns the address")
    if _HOST.fullmatch(text) is None:
        raise node.fail(f"{quoted(text)} is not a host name (lower case; a wildcard only as the first part)")
    return full_host(text, namespace)
