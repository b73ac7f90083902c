"""A lab's network: a node namespace with a bridge, a veth pair to each pod, IPv4 and IPv6, routes out by the node.

Both ends of each pair are made from inside the node's namespace, so no name of a lab is ever seen by the machine or by
another lab. Service addresses (10.96.0.0/16, fd96::/112) are routed nowhere: what answers there is the proxy's doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.lab import namespaces
from agent.lab.namespaces import Netns
from agent.lab.spec import NODE_ADDRESS4, NODE_ADDRESS6, PREFIX4, PREFIX6, PodSpec, address4, address6

BRIDGE: Final = "br0"
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
    _ip(node, _node_links())
    made = tuple(namespaces.create(name) for name, _ in pods)
    for netns, (_, pod) in zip(made, pods, strict=True):
        for key, value in _NO_DAD:
            netns.write_sysctl(key, value)
        if 6 not in pod.families:
            for scope in ("default", "all"):
                netns.write_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
    _ip(node, [line for index, netns in enumerate(made) for line in _veth(index, netns)])
    for index, netns in enumerate(made):
        _ip(netns, _pod_links(index, pods[index][1]))
    return node, made


def _node_links() -> list[str]:
    return [
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"link set {BRIDGE} up",
        f"addr add {NODE_ADDRESS4}/{PREFIX4} dev {BRIDGE}",
        f"addr add {NODE_ADDRESS6}/{PREFIX6} dev {BRIDGE} nodad",
    ]


def _veth(index: int, netns: Netns) -> list[str]:
    name = f"veth{index}"
    return [f"link add {name} type veth peer name eth0 netns {netns.name}", f"link set {name} master {BRIDGE} up"]


def _pod_links(index: int, pod: PodSpec) -> list[str]:
    lines = ["link set lo up", "link set eth0 up"]
    if 4 in pod.families:
        lines += [f"addr add {address4(index)}/{PREFIX4} dev eth0", f"route add default via {NODE_ADDRESS4}"]
    if 6 in pod.families:
        lines += [
            f"addr add {address6(index)}/{PREFIX6} dev eth0 nodad",
            f"route add default via {NODE_ADDRESS6} dev eth0",
        ]
    return lines


def _ip(netns: Netns, lines: Sequence[str]) -> None:
    netns.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
