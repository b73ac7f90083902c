"""A connection that lives in the proxy, as an operator sees it: who called, for whom it was meant, where it leads."""

from typing import Final, NamedTuple

from proxy.model.address import SocketAddress

IDLE: Final = "idle"
CLOSING: Final = "closing"


class LivingConnection(NamedTuple):
    """Addresses are those of the sockets, as the kernel tells them too, so that both of the proxy's join to its.

    `protocol`: http, tcp, detecting; `closing` when everything was said and the peer's end is awaited; `idle` for one
    that is kept towards a server between two requests and has no client. None: there is no such end at the moment.
    `service`: host of the Service that owns the original destination, or Istio's name for none. `route`: the rule that
    the request under way follows. `workload`: namespace/name of the pod that is called, empty when nobody knows it.

    A tuple rather than a dataclass: thirty thousand of them cross the link between worker and supervisor.
    """

    pod: str
    """Its uid."""
    netns_cookie: int
    direction: str
    protocol: str
    client: SocketAddress | None
    listener: SocketAddress | None
    original: SocketAddress
    upstream_from: SocketAddress | None
    upstream: SocketAddress | None
    service: str
    route: str
    workload: str
    age_s: float
