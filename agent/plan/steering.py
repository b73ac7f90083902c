"""What a pod's owner, or who installs a sidecar, wants steered: the wishes, before they become rules.

Every field's default is the mesh's own: everything but loopback and link-local is steered. One value serves both modes;
`agent.plan.annotations` and `agent.init` make it from the words of headgate, Istio, Linkerd and Kuma.
"""

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from agent.plan.ranges import Ranges
from agent.plan.rules import IPFamily, Protocol

Network = IPv4Network | IPv6Network

NOTHING: Final = Ranges()


class UdpPolicy(Enum):
    """What of UDP may leave or reach the pod; DNS always may. QUIC falls back to TCP when 443 is refused."""

    ALLOW = "allow"
    DENY_443 = "deny-443"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Included:
    """Only what goes to one of these ports, or into one of these networks, is steered (istio-iptables -q, -i)."""

    ports: Ranges = NOTHING
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnerPorts:
    """What these users send to these ports goes direct (kumactl --exclude-outbound-ports-for-uids)."""

    protocols: frozenset[Protocol]
    ports: Ranges
    uids: Ranges


@dataclass(frozen=True, slots=True)
class VirtualInterface:
    """What arrives on it comes from a guest (KubeVirt, Docker in the pod) and is steered as if the pod had sent it,
    except to `direct`. `name` may end in `+`: every interface that begins so (iptables(8) -i)."""

    name: str
    direct: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsCapture:
    """Queries that are led to the DNS listener (PlanSettings.dns_port). `servers` None: to whatever server.

    `over_loopback`: also what is asked of a resolver on lo; ztunnel leaves those alone, istio-iptables does not.
    """

    servers: tuple[IPv4Address | IPv6Address, ...] | None = None
    tcp: bool = True
    over_loopback: bool = False


@dataclass(frozen=True, slots=True)
class Owners:
    """The proxy's identity in init mode: a socket is the proxy's when its user or its group is one of these."""

    uids: Ranges = NOTHING
    gids: Ranges = NOTHING


@dataclass(frozen=True, slots=True)
class Steering:
    """Exclusion always wins over inclusion. None as an inclusion: everything; an empty one: nothing.

    `exclude_inbound_networks` are of sources, `exclude_outbound_networks` of destinations. `include_gids`: only what
    these groups send is steered; at least one. `drop_invalid` is of init mode: a node's rules drop what conntrack does
    not know anyway. `families`: traffic of another family is not steered.
    """

    include_inbound_ports: Ranges | None = None
    exclude_inbound_ports: Ranges = NOTHING
    exclude_inbound_networks: tuple[Network, ...] = ()
    include_outbound: Included | None = None
    exclude_outbound_ports: Ranges = NOTHING
    exclude_outbound_networks: tuple[Network, ...] = ()
    exclude_uids: Ranges = NOTHING
    exclude_gids: Ranges = NOTHING
    include_gids: Ranges | None = None
    exclude_owner_ports: tuple[OwnerPorts, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    virtual_interfaces: tuple[VirtualInterface, ...] = ()
    dns: DnsCapture | None = None
    udp: UdpPolicy = UdpPolicy.ALLOW
    drop_invalid: bool = False
    families: tuple[IPFamily, ...] = field(default=(IPFamily.IPV4, IPFamily.IPV6))
