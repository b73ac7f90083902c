"""kube-proxy in both its modes, the CNI's port maps, Docker: a node; and a container's own resolver."""

from typing import Final

from agent.explain.packet import ConntrackState
from tests.netns.explain.peers import Case, Peer, into, out

INVALID: Final = ConntrackState.INVALID
_RESOLVER: Final = {"iface": "cni0", "source": "10.244.0.2"}
_POD: Final = {"iface": "cni0", "source": "10.244.0.7"}
_OTHER: Final = {"iface": "cni0", "source": "10.244.0.3"}
_TWO: Final = "dnat 10.244.0.7:8080 or dnat 10.244.0.8:8080"
_NO_PORT: Final = "`th dport` of ICMP is its identifier: a part of a key that is not known"
_THREE: Final = f"dnat 10.0.0.5:8080 or {_TWO}"
_STICKY: Final = "dnat 10.244.0.11:80 or dnat 10.244.0.12:80"


def _kube_proxy(web: str, unsure: str = "") -> tuple[Case, ...]:
    """What both modes do alike. `web`: where a Service with several endpoints leads to. `unsure`: of ICMP."""
    return (
        Case("a pod dials a Service", into("10.96.0.20 80", **_OTHER), web),
        Case("a pod dials a Service that it is part of", into("10.96.0.20 80", **_POD), web),
        Case("the node dials it", out("10.96.0.20 80", uid=0), web),
        Case("a pod dials the API server", into("10.96.0.1 443", **_OTHER), "dnat 10.0.0.9:6443"),
        Case("the node dials the API server", out("10.96.0.1 443", uid=0), "dnat 10.0.0.9:6443"),
        Case("a pod asks for a name", into("10.96.0.10 53", **_OTHER, proto="udp"), "dnat 10.244.0.2:53"),
        Case("the resolver asks itself", into("10.96.0.10 53", **_RESOLVER, proto="udp"), "dnat 10.244.0.2:53"),
        Case("the node asks for a name", out("10.96.0.10 53", proto="udp"), "dnat 10.244.0.2:53"),
        Case("a pod dials a Service without endpoints", into("10.96.0.50 80", **_OTHER), "reject"),
        Case("the node dials it", out("10.96.0.50 80"), "reject"),
        Case("somebody dials a node port", into("10.0.0.5 30080"), web),
        Case("a pod dials the node port", into("10.0.0.5 30080", **_OTHER), web),
        Case("the node dials its own node port", out("10.0.0.5 30080"), web),
        Case("somebody dials a node port without endpoints", into("10.0.0.5 30099"), "reject"),
        Case("somebody dials the kubelet", into("10.0.0.5 10250"), "accept"),
        Case("a pod dials another pod", into("10.244.0.8 8080", **_OTHER), "accept"),
        Case("a pod dials the internet", into("8.8.8.8 443", **_OTHER), "accept"),
        Case("the node dials a pod", out("10.244.0.7 8080"), "accept"),
        Case("the node dials itself", out("127.0.0.1 10248"), "accept"),
        Case("a datagram to the node port", into("10.0.0.5 30080", proto="udp"), "accept"),
        Case("an echo request through the node", into("8.8.8.8", **_OTHER, proto="icmp"), "accept", unsure),
    )  # fmt: skip


_IPTABLES: Final = (
    *_kube_proxy(_THREE),
    Case("a pod dials a Service whose clients stay", into("10.96.0.30 80", **_OTHER), _STICKY),
    Case("a pod dials a wrong port of a Service", into("10.96.0.20 81", **_OTHER), "accept"),
    Case("the load balancer's address, from outside", into("10.96.0.40 80"), "drop"),
    Case("the same, by the node", out("10.96.0.40 80"), "drop"),
    Case("somebody outside dials this node's localhost", into("127.0.0.1 10248"), "drop"),
    Case("the health check of a load balancer", into("10.0.0.5 32000"), "accept"),
    Case("a node port on localhost, without route_localnet", out("127.0.0.1 30080"), "dnat 10.0.0.5:8080 or drop"),
    Case("a packet of no connection through the node", into("8.8.8.8 443", **_OTHER, state=INVALID), "drop"),
)  # fmt: skip
_NFT: Final = (
    *_kube_proxy(_TWO, _NO_PORT),
    Case("a pod dials a wrong port of a Service", into("10.96.0.20 81", **_OTHER), "reject"),
    Case("the node dials a wrong port of a Service", out("10.96.0.20 81"), "reject"),
    Case("an address that no Service has", into("10.96.7.7 80", **_OTHER), "drop"),
    Case("the same, by the node", out("10.96.7.7 80"), "drop"),
    Case("a Service that is to be silent", into("10.96.0.51 80", **_OTHER), "drop"),
    Case("the load balancer's address, from who may", into("10.96.0.40 80", source="10.0.0.9"), "drop"),
    Case("the same, from who may not", into("10.96.0.40 80", source="10.0.0.99"), "drop"),
    Case("a node port on localhost is none", out("127.0.0.1 30080"), "accept"),
)
_PORTMAP: Final = (
    Case("somebody dials a host port", into("10.0.0.5 8080"), "dnat 10.244.0.7:80"),
    Case("by the other network", into("10.9.0.5 8080", source="10.9.0.9", iface="net1"), "dnat 10.244.0.7:80"),
    Case("a pod dials it", into("10.0.0.5 8080", **_OTHER), "dnat 10.244.0.7:80"),
    Case("the pod dials its own host port", into("10.0.0.5 8080", **_POD), "dnat 10.244.0.7:80"),
    Case("the node dials it", out("10.0.0.5 8080"), "dnat 10.244.0.7:80"),
    Case("by another of its addresses", out("10.244.0.1 8080"), "dnat 10.244.0.7:80"),
    Case("another node's port of that number", out("10.0.0.9 8080"), "accept"),
    Case("through the node to another's", into("10.9.0.9 8080", **_OTHER), "accept"),
    Case("the port beside it", into("10.0.0.5 8081"), "accept"),
    Case("the port by UDP", into("10.0.0.5 8080", proto="udp"), "accept"),
    Case("a host port by UDP", into("10.0.0.5 5353", proto="udp"), "dnat 10.244.0.8:53"),
    Case("a pod uses that", into("10.0.0.5 5353", **_OTHER, proto="udp"), "dnat 10.244.0.8:53"),
    Case("the node uses it", out("10.0.0.5 5353", proto="udp"), "dnat 10.244.0.8:53"),
    Case("that port by TCP", into("10.0.0.5 5353"), "accept"),
    Case("a host port of one address", into("10.0.0.5 9443"), "dnat 10.244.0.8:443"),
    Case("the other address", into("10.9.0.5 9443", source="10.9.0.9", iface="net1"), "accept"),
    Case("the second of its ports, which leads nowhere", into("10.0.0.5 9444"), "accept"),
    Case("a pod dials a pod", into("10.244.0.7 80", **_OTHER), "accept"),
    Case("a pod dials the internet", into("8.8.8.8 8080", **_OTHER), "accept"),
    Case("an echo request", into("10.0.0.5", proto="icmp"), "accept"),
    Case("the node's own ssh", into("10.0.0.5 22"), "accept"),
)
_DOCKER: Final = (
    Case("somebody dials a published port", into("10.0.0.5 8080"), "dnat 172.17.0.2:80"),
    Case("by the other network", into("10.9.0.5 8080", source="10.9.0.9", iface="net1"), "dnat 172.17.0.2:80"),
    Case("the host dials it", out("10.0.0.5 8080"), "dnat 172.17.0.2:80"),
    Case("the host dials it by localhost: Docker's own proxy", out("127.0.0.1 8080"), "accept"),
    Case("a container dials it by the host", into("10.0.0.5 8080", iface="docker0", source="172.17.0.3"), "accept"),
    Case("a datagram to a published port", into("10.0.0.5 5353", proto="udp"), "dnat 172.18.0.2:53"),
    Case("its number by TCP", into("10.0.0.5 5353"), "accept"),
    Case("a published port without a way through", into("10.0.0.5 9443"), "drop"),
    Case("who is blocked dials a published port", into("10.0.0.5 8080", source="203.0.113.9"), "drop"),
    Case("he dials the host itself", into("10.0.0.5 22", source="203.0.113.9"), "accept"),
    Case("a container dials the internet", into("8.8.8.8 443", iface="docker0", source="172.17.0.2"), "accept"),
    Case("one of the other bridge does", into("8.8.8.8 443", iface="br-web", source="172.18.0.2"), "accept"),
    Case("a container dials one of its bridge", into("172.17.0.3 80", iface="docker0", source="172.17.0.2"), "accept"),
    Case("one of the other bridge", into("172.18.0.2 80", iface="docker0", source="172.17.0.2"), "drop"),
    Case("and back", into("172.17.0.2 80", iface="br-web", source="172.18.0.2"), "drop"),
    Case("somebody dials a container without asking", into("172.17.0.2 22"), "drop"),
    Case("its published port without the host", into("172.17.0.2 80"), "accept"),
    Case("somebody routes through the host", into("10.9.0.9 80"), "drop"),
    Case("the host dials a container", out("172.17.0.2 22"), "accept"),
    Case("the host dials the internet", out("8.8.8.8 443"), "accept"),
    Case("somebody dials the host", into("10.0.0.5 22"), "accept"),
    Case("a container dials the host", into("172.17.0.1 22", iface="docker0", source="172.17.0.2"), "accept"),
)
_DOCKER_DNS: Final = (
    Case("a name is asked for", out("127.0.0.11 53", proto="udp"), "dnat 127.0.0.11:44935"),
    Case("by TCP", out("127.0.0.11 53"), "dnat 127.0.0.11:38421"),
    Case("by root", out("127.0.0.11 53", proto="udp", uid=0, gid=0), "dnat 127.0.0.11:44935"),
    Case("another port of the resolver", out("127.0.0.11 54", proto="udp"), "accept"),
    Case("another port by TCP", out("127.0.0.11 80"), "accept"),
    Case("its own port, straight", out("127.0.0.11 38421"), "accept"),
    Case("its own port by UDP, straight", out("127.0.0.11 44935", proto="udp"), "accept"),
    Case("an echo request", out("127.0.0.11", proto="icmp"), "accept"),
    Case("the loopback address beside it", out("127.0.0.12 53", proto="udp"), "accept"),
    Case("localhost", out("127.0.0.1 53", proto="udp"), "accept"),
    Case("another resolver", out("8.8.8.8 53", proto="udp"), "accept"),
    Case("another resolver by TCP", out("8.8.8.8 53"), "accept"),
    Case("the resolver's own query", out("10.0.0.53 53", proto="udp", source="10.0.0.5 44935"), "accept"),
    Case("the application dials out", out("10.0.0.9 80"), "accept"),
    Case("it dials itself", out("10.0.0.5 80"), "accept"),
    Case("it dials localhost", out("127.0.0.1 80"), "accept"),
    Case("somebody dials it", into("10.0.0.5 80"), "accept"),
    Case("somebody asks it for a name", into("10.0.0.5 53", proto="udp"), "accept"),
    Case("QUIC", out("8.8.8.8 443", proto="udp"), "accept"),
    Case("SCTP to the resolver", out("127.0.0.11 53", proto="sctp"), "accept"),
)

NODES: Final = (
    Peer("kube-proxy", ("kube_proxy.iptables",), _IPTABLES),
    Peer("kube-proxy-native", ("kube_proxy.nft",), _NFT),
    Peer("portmap", ("portmap.iptables",), _PORTMAP),
    Peer("docker", ("docker_host.iptables",), _DOCKER),
    Peer("docker-resolver", ("docker_dns.iptables",), _DOCKER_DNS),
)
