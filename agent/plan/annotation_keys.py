"""The annotations of a pod that say what is steered: headgate's own names and those of Istio, Linkerd and Kuma.

docs/annotations.md shows these tables; a test compares. Semantics are each family's own: Istio's
`pkg/kube/inject/validate.go` and `tools/istio-iptables`, Linkerd's `pkg/ports`, Kuma's
`pkg/transparentproxy/kubernetes/kubernetes.go` and `config/utils.go`; ranges are understood everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from agent.plan.ranges import Ranges
from agent.plan.steering import NOTHING, DnsCapture, Network, VirtualInterface
from agent.plan.words import (
    ALL,
    parse_addresses,
    parse_flag,
    parse_ids,
    parse_interfaces,
    parse_networks,
    parse_owner_ports_list,
    parse_ports,
    parse_udp,
    parse_virtual_interfaces,
)


class Mesh(Enum):
    """Whose words they are, in the order of precedence."""

    HEADGATE = "headgate"
    ISTIO = "Istio"
    LINKERD = "Linkerd"
    KUMA = "Kuma"


@dataclass(frozen=True, slots=True)
class Key:
    """`read` makes a value of `Steering`'s field of the annotation's text, or raises ValueError."""

    name: str
    mesh: Mesh
    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Family:
    """Annotations that ask the same: the first mesh that says anything decides alone, nothing is merged.

    `keys` in the order of precedence. `field` is Steering's.
    """

    name: str
    field: str
    meaning: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Aside:
    """A peer's annotation that steers nothing here. `harmless` values (None: all) are noted with the reason; with any
    other the pod is refused, because to ignore it would steer what was not to be steered."""

    name: str
    reason: str
    harmless: frozenset[str] | None = None


# ── How the values are read ────────────────────────────────────────────────────────────────────────────────────────
def _included_ports(text: str) -> Ranges | None:
    return None if text.strip() == ALL else parse_ports(text)


def _included_networks(text: str) -> tuple[Network, ...] | None:
    return None if text.strip() == ALL else parse_networks(text)


def _bypassed(text: str) -> Ranges | None:
    return NOTHING if parse_flag(text) else None


def _dns(text: str) -> DnsCapture | None:
    try:
        return DnsCapture() if parse_flag(text) else None
    except ValueError:
        servers = parse_addresses(text)
    if not servers:
        raise ValueError("'' says nothing: use enabled, disabled, or the addresses of the DNS servers")
    return DnsCapture(servers=servers)


def _ambient_dns(text: str) -> DnsCapture | None:
    return DnsCapture() if parse_flag(text) else None


def _guests(text: str) -> tuple[VirtualInterface, ...]:
    return tuple(VirtualInterface(name) for name in parse_interfaces(text))


def _h(name: str, read: Callable[[str], Any]) -> Key:
    return Key(f"headgate.io/{name}", Mesh.HEADGATE, read)


def _i(name: str, read: Callable[[str], Any]) -> Key:
    return Key(f"traffic.sidecar.istio.io/{name}", Mesh.ISTIO, read)


def _l(name: str, read: Callable[[str], Any]) -> Key:
    return Key(f"config.linkerd.io/{name}", Mesh.LINKERD, read)


def _k(name: str, read: Callable[[str], Any]) -> Key:
    return Key(f"traffic.kuma.io/{name}", Mesh.KUMA, read)


INCLUDE_OUTBOUND: Final = Family(
    "include-outbound",
    "include_outbound",
    "only connections to these ports or into these networks are steered",
    (
        _h("include-outbound-ports", _included_ports),
        _h("include-outbound-cidrs", _included_networks),
        _i("includeOutboundPorts", _included_ports),
        _i("includeOutboundIPRanges", _included_networks),
    ),
)
"""The one family of two keys a mesh: what either includes is steered."""
NETWORK_KEYS: Final = frozenset(
    {"headgate.io/include-outbound-cidrs", "traffic.sidecar.istio.io/includeOutboundIPRanges"}
)

FAMILIES: Final = (
    Family(
        "exclude-outbound-ports",
        "exclude_outbound_ports",
        "TCP and UDP to these ports goes direct, DNS too when 53 is one of them",
        (
            _h("exclude-outbound-ports", parse_ports),
            _i("excludeOutboundPorts", parse_ports),
            _l("skip-outbound-ports", parse_ports),
            _k("exclude-outbound-ports", parse_ports),
        ),
    ),
    Family(
        "exclude-outbound-cidrs",
        "exclude_outbound_networks",
        "connections into these networks go direct",
        (
            _h("exclude-outbound-cidrs", parse_networks),
            _i("excludeOutboundIPRanges", parse_networks),
            _k("exclude-outbound-ips", parse_networks),
        ),
    ),
    INCLUDE_OUTBOUND,
    Family(
        "exclude-outbound-ports-for-uids",
        "exclude_owner_ports",
        "what these users send to these ports goes direct",
        (
            _h("exclude-outbound-ports-for-uids", parse_owner_ports_list),
            _k("exclude-outbound-ports-for-uids", parse_owner_ports_list),
        ),
    ),
    Family(
        "exclude-inbound-ports",
        "exclude_inbound_ports",
        "connections to these ports reach the application directly",
        (
            _h("exclude-inbound-ports", parse_ports),
            _i("excludeInboundPorts", parse_ports),
            _l("skip-inbound-ports", parse_ports),
            _k("exclude-inbound-ports", parse_ports),
        ),
    ),
    Family(
        "exclude-inbound-cidrs",
        "exclude_inbound_networks",
        "connections from these networks reach the application directly",
        (
            _h("exclude-inbound-cidrs", parse_networks),
            _l("skip-subnets", parse_networks),
            _k("exclude-inbound-ips", parse_networks),
        ),
    ),
    Family(
        "include-inbound-ports",
        "include_inbound_ports",
        "only connections to these ports are steered; none when empty",
        (
            _h("include-inbound-ports", _included_ports),
            _i("includeInboundPorts", _included_ports),
            Key("ambient.istio.io/bypass-inbound-capture", Mesh.ISTIO, _bypassed),
        ),
    ),
    Family("exclude-uids", "exclude_uids", "what these users send goes direct", (_h("exclude-uids", parse_ids),)),
    Family("exclude-gids", "exclude_gids", "what these groups send goes direct", (_h("exclude-gids", parse_ids),)),
    Family("include-gids", "include_gids", "only what these groups send is steered", (_h("include-gids", parse_ids),)),
    Family(
        "exclude-interfaces",
        "exclude_interfaces",
        "what arrives on these interfaces, or leaves through them, is left alone altogether",
        (_h("exclude-interfaces", parse_interfaces), _i("excludeInterfaces", parse_interfaces)),
    ),
    Family(
        "virtual-interfaces",
        "virtual_interfaces",
        "what arrives on these interfaces comes from a guest and is steered as the pod's own",
        (
            _h("virtual-interfaces", parse_virtual_interfaces),
            Key("istio.io/reroute-virtual-interfaces", Mesh.ISTIO, _guests),
            _i("kubevirtInterfaces", _guests),
        ),
    ),
    Family(
        "dns-capture",
        "dns",
        "queries to port 53 are led to the proxy's DNS listener",
        (_h("dns-capture", _dns), Key("ambient.istio.io/dns-capture", Mesh.ISTIO, _ambient_dns)),
    ),
    Family("udp", "udp", "what of UDP may pass, DNS apart", (_h("udp", parse_udp),)),
    Family(
        "drop-invalid",
        "drop_invalid",
        "packets that conntrack finds invalid are dropped as they arrive",
        (_h("drop-invalid", parse_flag), _k("drop-invalid-packets", parse_flag)),
    ),
)

_SIDECAR: Final = "another mesh steers this pod already: take its sidecar or redirection out, or leave the pod to it"
_KUMA_CONFIG: Final = (
    "what it excludes is not read here: write it as annotations, headgate.io/exclude-outbound-ports and so on"
)
_BY_MARK: Final = "the node's proxy is known by its mark, not by a user"

ASIDES: Final = (
    Aside(
        "sidecar.istio.io/interceptionMode",
        "connections are redirected, which is REDIRECT; TPROXY is not done, and a pod that is not to be steered gets "
        "the label headgate.io/mesh: disabled",
        frozenset({"REDIRECT"}),
    ),
    Aside("sidecar.istio.io/status", _SIDECAR, frozenset()),
    Aside("ambient.istio.io/redirection", _SIDECAR, frozenset({"disabled"})),
    Aside("sidecar.istio.io/inject", "the label headgate.io/mesh says which pods are steered"),
    Aside("config.linkerd.io/proxy-uid", _BY_MARK),
    Aside("config.linkerd.io/proxy-gid", _BY_MARK),
    Aside("config.linkerd.io/close-wait-timeout", "a time-out of conntrack, which steers nothing"),
    Aside("traffic.kuma.io/iptables-logs", "a log, which steers nothing: every rule has a counter"),
    Aside("traffic.kuma.io/transparent-proxy-config", _KUMA_CONFIG, frozenset()),
    Aside("traffic.kuma.io/transparent-proxy-configmap-name", _KUMA_CONFIG, frozenset()),
)

STEERING_PREFIXES: Final = (
    "headgate.io/exclude-",
    "headgate.io/include-",
    "traffic.sidecar.istio.io/",
    "config.linkerd.io/skip-",
    "traffic.kuma.io/",
)
"""Whatever begins so steers: a misspelt key is told, never ignored."""
KNOWN: Final = frozenset(key.name for family in FAMILIES for key in family.keys) | {aside.name for aside in ASIDES}
