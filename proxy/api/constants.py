"""Ports, marks and paths that agent, proxy, rules and documents share.

The numbers are Istio ambient's wherever it has one (istio/ztunnel ARCHITECTURE.md, istio cni/pkg/iptables), so that
its dashboards, NetworkPolicies and operators' habits hold.
"""

from typing import Final

# ── Listeners inside each pod's network namespace ──────────────────────────────────────────────────────────────────
OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006
TUNNEL_PORT: Final = 15008
DNS_PORT: Final = 15053

PROXY_PORTS: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT, TUNNEL_PORT, DNS_PORT})
"""Nobody may be led through the proxy to these: a call would meet itself (ztunnel: illegal_ports)."""

PROOF_PORT: Final = 15002
"""Where the agent's proof connects to. istio-iptables' probe port: reserved there already, so no application has it."""

# ── On the node's own addresses ────────────────────────────────────────────────────────────────────────────────────
AGENT_METRICS_PORT: Final = 15014
PROXY_METRICS_PORT: Final = 15020
PROXY_READY_PORT: Final = 15021

# ── Marks: the low twelve bits only, the rest belongs to other CNIs ────────────────────────────────────────────────
PROXY_MARK: Final = 0x539
"""Set by the proxy on each of its sockets (SO_MARK); what carries it is never led to the proxy again."""
RETURN_MARK: Final = 0x111
"""Connection mark of a connection that the proxy opened to the pod's application with the client's address."""
MARK_MASK: Final = 0xFFF

RETURN_TABLE: Final = 100
"""Routing table that delivers RETURN_MARK packets to this namespace: the application's answers to the proxy."""
RETURN_RULE_PREFERENCE: Final = 32764

PROXY_ZONE: Final = 1
"""conntrack zone of the proxy's own packets, in the original direction: without it the proxy's upstream tuple can
equal the client's redirected one and the connect hangs (52 of 300 in a test on kernel 6.18)."""

PASSTHROUGH4: Final = "127.0.0.6"
PASSTHROUGH6: Final = "::6"
"""From where a sidecar that may not be transparent calls its own application: what comes from there over lo is never
led to it again (istio-iptables and kumactl: the same addresses, known to Envoy's configuration from both)."""

# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────────
RUN_DIRECTORY: Final = "/var/run/headgate"
ZDS_SOCKET: Final = "zds.sock"
OBJECTS_SOCKET: Final = "objects.sock"
FDS_SOCKET: Final = "fds.sock"
ADMIN_SOCKET: Final = "admin.sock"
CNI_SOCKET: Final = "cni.sock"
PROXY_ADMIN_SOCKET: Final = "proxy-admin.sock"

# ── Protocols that pass as opaque TCP unless declared otherwise ────────────────────────────────────────────────────
DEFAULT_OPAQUE_PORTS: Final = frozenset({25, 587, 3306, 4444, 5432, 6379, 9300, 11211})
"""Linkerd's list (linkerd2 charts/linkerd-control-plane/values.yaml): protocols in which the server speaks first."""
