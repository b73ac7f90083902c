"""What one kind of proxy needs of the rules: its ports, and what tells its own packets from the application's."""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Final

from agent.plan.errors import InvalidPlan
from agent.plan.rules import IPFamily, ReturnPath
from agent.plan.steering import Owners, Steering
from proxy.api import constants

LOOPBACK4: Final = IPv4Network("127.0.0.0/8")  # RFC 1122 3.2.1.3: all of it, not 127.0.0.1 alone

PROBE_SOURCE4: Final = IPv4Address("169.254.7.127")
PROBE_SOURCE6: Final = IPv6Address("fd16:9254:7127:1337:ffff:ffff:ffff:ffff")
"""Istio ambient's (HOST_PROBE_SNAT_IP, HOST_PROBE_SNAT_IPV6): a NetworkPolicy that lets its probes in lets ours in."""

_PORTS: Final = ("outbound_port", "inbound_port", "tunnel_port", "dns_port")


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """The addresses from which the node's own processes reach a pod, kubelet's probes among them: who comes from there
    speaks with the application itself. agent.plan.node_rules gives them to nobody else. Raises InvalidPlan."""

    source4: IPv4Address = PROBE_SOURCE4
    source6: IPv6Address = PROBE_SOURCE6

    def __post_init__(self) -> None:
        for address in (self.source4, self.source6):
            if address.is_loopback or address.is_multicast or address.is_unspecified:
                raise InvalidPlan("probes", f"{address} can be nobody's source: use {PROBE_SOURCE4}, {PROBE_SOURCE6}")


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Ports and identity of the proxy. Construction validates; raises InvalidPlan.

    `owners` None: node mode, the proxy's sockets carry `proxy_mark`, and it calls the application from the client's
    address. Else init mode: its sockets belong to `owners`. There `passthrough` says that it calls the application
    from 127.0.0.6 or ::6; a sidecar that may be transparent (CAP_NET_ADMIN) has the node proxy's way, mark included.
    `own_pod` False: it calls the application as plainly as anybody (linkerd2-proxy), so what it sends to its own pod is
    never led to it again.
    `loopback4`: what of 127.0.0.0/8 is exempt by name (ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR); all that is sent over lo is
    exempt anyway. `defaults`: what a pod gets that wishes nothing else. `probes`: node mode; None: the node gives its
    own connections no address to be known by, and they meet the proxy like anybody's.
    """

    outbound_port: int = constants.OUTBOUND_PORT
    inbound_port: int = constants.INBOUND_PORT
    tunnel_port: int = constants.TUNNEL_PORT
    proxy_mark: int = constants.PROXY_MARK
    return_mark: int = constants.RETURN_MARK
    mark_mask: int = constants.MARK_MASK
    owners: Owners | None = None
    passthrough: bool = True
    own_pod: bool = True
    dns_port: int = constants.DNS_PORT
    loopback4: IPv4Network = LOOPBACK4
    defaults: Steering = field(default_factory=Steering)
    probes: ProbeSettings | None = None

    def __post_init__(self) -> None:
        self._check_ports()
        if not 0 < self.mark_mask <= 0xFFFFFFFF:
            raise InvalidPlan("mark_mask", f"{self.mark_mask:#x} is no 32-bit mask")
        for name in ("proxy_mark", "return_mark"):
            mark = getattr(self, name)
            if mark == 0 or mark & ~self.mark_mask:
                raise InvalidPlan(name, f"{mark:#x} is not within mark_mask {self.mark_mask:#x}, or zero")
        if self.proxy_mark == self.return_mark:
            raise InvalidPlan("return_mark", f"{self.return_mark:#x} equals proxy_mark: answers would bypass the proxy")
        if self.owners is not None and not (self.owners.uids or self.owners.gids):
            raise InvalidPlan("owners", "no user and no group: the proxy's own connections would come back to it")
        if not self.loopback4.subnet_of(LOOPBACK4):
            raise InvalidPlan("loopback4", f"{self.loopback4} is not within {LOOPBACK4}: use exclude_outbound_networks")
        if self.probes is not None and self.owners is not None:
            raise InvalidPlan("probes", "a sidecar has no node that would mark them: they are for node mode")

    def _check_ports(self) -> None:
        ports = {name: getattr(self, name) for name in _PORTS}
        for name, port in ports.items():
            if not 1 <= port <= 65535:
                raise InvalidPlan(name, f"{port} is no TCP port: use 1 to 65535")
        times = Counter(ports.values())
        shared = {name: port for name, port in ports.items() if times[port] > 1}
        if shared:
            raise InvalidPlan(", ".join(shared), f"must differ, not {sorted(shared.values())}")

    @property
    def transparent(self) -> bool:
        """Whether the proxy calls the application from the client's address, by marked sockets."""
        return self.owners is None or not self.passthrough

    @property
    def steered_ports(self) -> frozenset[int]:
        """Where steered connections end: what a socket on these ports sends is translated by conntrack, or dropped."""
        return frozenset({self.outbound_port, self.inbound_port, self.dns_port})

    @property
    def return_path(self) -> ReturnPath:
        """Of both families; of none where the proxy is not transparent."""
        return self.return_path_of(tuple(IPFamily))

    def return_path_of(self, families: tuple[IPFamily, ...]) -> ReturnPath:
        steered = tuple(family for family in IPFamily if family in families and self.transparent)
        table, preference = constants.RETURN_TABLE, constants.RETURN_RULE_PREFERENCE
        return ReturnPath(self.return_mark, self.mark_mask, table, preference, steered)
