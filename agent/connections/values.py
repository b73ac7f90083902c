"""A connection as a person sees it, whichever of its pieces are known. Pure values; not yet printable."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.plan import FlowKey
from agent.pods import IPAddress
from proxy.api.constants import DNS_PORT, INBOUND_PORT, OUTBOUND_PORT, TUNNEL_PORT


class Way(Enum):
    OUTBOUND = "outbound"  # opened here
    INBOUND = "inbound"  # opened elsewhere, to here
    LOCAL = "local"  # both ends are here


class Path(Enum):
    """What carries it (DESIGN 6), and what does not."""

    HTTP = "http"
    TCP = "tcp"
    DETECTING = "detecting"
    CLOSING = "closing"
    IDLE = "idle"  # kept by the proxy towards a server, between two requests
    REDIRECT = "redirect"  # led to a listener whose proxy does not tell what it does with it
    PROXY = "proxy"  # the proxy's own, of which it does not tell
    DIRECT = "direct"


STEERED: Final = frozenset(
    {Path.HTTP, Path.TCP, Path.DETECTING, Path.CLOSING, Path.IDLE, Path.REDIRECT, Path.PROXY}  # PROXY: its other half
)


class Reason(Enum):
    """Why no proxy has it; the first three are those of `headgate pods` and headgate_unsteered_connections."""

    GRANDFATHERED = "grandfathered"
    DRIFT = "drift"
    RULES_CHANGED = "rules_changed"
    EXCLUDED = "excluded"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link_local"
    NO_RULE = "no_rule"
    PAST = "past_the_rules"
    UDP = "udp"
    UNKNOWN = "unknown"


WORDS: Final = {
    Reason.GRANDFATHERED: "older than the rules",
    Reason.DRIFT: "opened while the rules were missing",
    Reason.RULES_CHANGED: "left alone by the rules that were in force when it was opened",
    Reason.EXCLUDED: "excluded",
    Reason.LOOPBACK: "loopback, or the pod's own address over lo: never steered",
    Reason.LINK_LOCAL: "link-local IPv6: never steered",
    Reason.NO_RULE: "no rule leads it anywhere",
    Reason.PAST: "would be led away if it were opened now: it is older than the rules, or slipped past them",
    Reason.UDP: "UDP, which no rule leads anywhere",
    Reason.UNKNOWN: "the rules do not tell",
}

LISTENERS: Final = {
    OUTBOUND_PORT: "outbound",
    INBOUND_PORT: "inbound",
    TUNNEL_PORT: "tunnel",
    DNS_PORT: "dns",
    # linkerd2 charts/partials: proxy.ports.outbound, proxy.ports.inbound; kuma pkg/config: redirectPortInboundV6
    4140: "linkerd outbound",
    4143: "linkerd inbound",
    15010: "inbound",
}
"""By port; 15001 and 15006 are Istio's and Kuma's too."""

Place = tuple[IPAddress, int]


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class End:
    """`process` and `uid`: of the socket, where it is here and they are known."""

    address: IPAddress
    port: int
    process: Process | None = None
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """`destination`: where `source` wanted to go, whatever was made of it. `listener`: port of the proxy's that it was
    led to. `upstream`: where the proxy, or a translation, took it, and from which address. `age_s` None: nobody
    remembers when it was opened; it is no younger than `at_least_s`. `why`: in words, beside `reason`."""

    protocol: str
    way: Way
    source: End
    destination: End
    path: Path
    state: str = ""
    listener: int | None = None
    reason: Reason | None = None
    why: str = ""
    service: str = ""
    route: str = ""
    workload: str = ""
    upstream_from: Place | None = None
    upstream: Place | None = None
    age_s: float | None = None
    at_least_s: float | None = None
    worker: int | None = None

    @property
    def steered(self) -> bool:
        return self.path in STEERED

    @property
    def unsteered(self) -> bool:
        """TCP that goes past the proxy where it might have been its: neither over lo nor link-local."""
        return self.reason not in (None, Reason.LOOPBACK, Reason.LINK_LOCAL, Reason.UDP)


@dataclass(frozen=True, slots=True)
class ProxyConnection:
    """What the proxy tells of one (proxy.supervisor.connections); `client` and `listener` None: it is idle."""

    pod: str
    netns_cookie: int
    way: Way
    path: Path
    original: Place
    client: Place | None = None
    listener: Place | None = None
    upstream_from: Place | None = None
    upstream: Place | None = None
    service: str = ""
    route: str = ""
    workload: str = ""
    age_s: float = 0.0
    worker: int = 0

    @property
    def downstream_key(self) -> FlowKey | None:
        """Of the proxy's socket towards the client."""
        return None if self.client is None or self.listener is None else (*self.listener, *self.client)

    @property
    def upstream_key(self) -> FlowKey | None:
        return None if self.upstream_from is None or self.upstream is None else (*self.upstream_from, *self.upstream)


def reverse(key: FlowKey) -> FlowKey:
    """The other end of it, where nothing is translated."""
    local, local_port, remote, remote_port = key
    return remote, remote_port, local, local_port
