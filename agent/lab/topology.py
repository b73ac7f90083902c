"""A lab's network: a node namespace with a bridge, a veth pair to each pod, IPv4 and IPv6, routes out by the node.

Both ends of each pair are made from inside the node's namespace, so no name of a lab is ever seen by the machine or by
another lab. Service addresses (10.96.0.0/16, fd96::/112) are routed nowhere: what answers there is the proxy's doing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from pyroute2 import IPRoute

from agent.lab import namespaces
from agent.lab.namespaces import Netns
from agent.lab.spec import NODE_ADDRESS4, NODE_ADDRESS6, PREFIX4, PREFIX6, PodSpec, address4, address6

BRIDGE: Final = "br0"
_IFA_F_NODAD: Final = 0x02  # linux/if_addr.h
_NODE_SYSCTLS: Final = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
)
_NO_DAD: Final = (
    # New interfaces take the default's value: their IPv6 addresses are usable at once instead of after a second.
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
)


def build(node_name: str, pods: Sequence[tuple[str, PodSpec]]) -> tuple[Netns, tuple[Netns, ...]]:
    """Makes the node's and the pods' namespaces, each given by its name, and links them. On an error what was made
    stays: the caller removes it by the lab's prefix, as after a crash."""
    node = namespaces.create(node_name)
    for key, value in (*_NO_DAD, *_NODE_SYSCTLS):
        node.write_sysctl(key, value)
    node.call(_link_node)
    made = tuple(namespaces.create(name) for name, _ in pods)
    for netns, (_, pod) in zip(made, pods, strict=True):
        for key, value in _NO_DAD:
            netns.write_sysctl(key, value)
        if 6 not in pod.families:
            for scope in ("default", "all"):
                netns.write_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
    node.call(_link_pods, made)
    for index, netns in enumerate(made):
        netns.call(_address_pod, index, pods[index][1])
    return node, made


def _link_node() -> None:
    with IPRoute() as ip:
        _up(ip, "lo")
        ip.link("add", ifname=BRIDGE, kind="bridge")
        bridge = _up(ip, BRIDGE)
        ip.addr("add", index=bridge, address=str(NODE_ADDRESS4), prefixlen=PREFIX4)
        ip.addr("add", index=bridge, address=str(NODE_ADDRESS6), prefixlen=PREFIX6, flags=_IFA_F_NODAD)


def _link_pods(pods: Sequence[Netns]) -> None:
    with IPRoute() as ip:
        bridge = ip.link_lookup(ifname=BRIDGE)[0]
        for index, netns in enumerate(pods):
            name = f"veth{index}"
            with netns.path.open() as namespace:
                peer = {"ifname": "eth0", "net_ns_fd": namespace.fileno()}
                ip.link("add", ifname=name, kind="veth", peer=peer)
            ip.link("set", index=ip.link_lookup(ifname=name)[0], master=bridge, state="up")


def _address_pod(index: int, pod: PodSpec) -> None:
    with IPRoute() as ip:
        _up(ip, "lo")
        eth0 = _up(ip, "eth0")
        if 4 in pod.families:
            ip.addr("add", index=eth0, address=str(address4(index)), prefixlen=PREFIX4)
            ip.route("add", dst="default", gateway=str(NODE_ADDRESS4), oif=eth0)
        if 6 in pod.families:
            ip.addr("add", index=eth0, address=str(address6(index)), prefixlen=PREFIX6, flags=_IFA_F_NODAD)
            ip.route("add", dst="default", family=socket.AF_INET6, gateway=str(NODE_ADDRESS6), oif=eth0)


def _up(ip: Any, name: str) -> int:
    """The interface's index; it is set up."""
    index: int = ip.link_lookup(ifname=name)[0]
    ip.link("set", index=index, state="up")
    return index
