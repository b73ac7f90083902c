"""A pod and its surroundings, equal to the byte whatever backend steers it: who sends what, and who gets it.

Behind eth0 is the peer, which is the pod's gateway and has the addresses of a wider world; behind net1 a guest, whose
gateway is the pod. All listen on every port that a packet may go to; the proxy's ports have listeners of their own.
"""

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count
from typing import Final

from agent.lab import namespaces
from agent.lab.namespaces import Netns
from agent.plan.rules import IPFamily, Protocol
from proxy.api.constants import DNS_PORT, INBOUND_PORT, OUTBOUND_PORT, TUNNEL_PORT
from tests.netns.backends.packets import FAR, PEER, PEER_NET1, POD, POD_NET1, PORTS, Arrival, Packet, Way

_PATIENCE_S: Final = 3.0
"""A SYN is sent again after one second: what takes longer goes nowhere."""
_NUMBER: Final = {IPFamily.IPV4: socket.AF_INET, IPFamily.IPV6: socket.AF_INET6}
_KIND: Final = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_ANY: Final = {IPFamily.IPV4: "0.0.0.0", IPFamily.IPV6: "::"}
_RESET: Final = struct.pack("=ii", 1, 0)  # struct linger: on, 0 s
_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, netfilter_ipv6/ip6_tables.h
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_TRANSLATED: Final = (Arrival.OUTBOUND, Arrival.INBOUND)


@dataclass(slots=True)
class Place:
    """Context manager: listens while it is entered, and removes its namespaces at the end."""

    pod: Netns
    peer: Netns
    guest: Netns
    _listeners: dict[int, tuple[socket.socket, Arrival, Protocol]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _source_ports: "count[int]" = field(default_factory=lambda: count(20_000))

    @classmethod
    def make(cls, name: str) -> "Place":
        made: list[Netns] = []
        try:
            for role in ("pod", "peer", "guest"):
                made.append(namespaces.create(f"{name}{role}"))
        except BaseException:
            for netns in made:
                namespaces.delete(netns)
            raise
        return cls(*made)

    def __enter__(self) -> "Place":
        for netns in (self.pod, self.peer, self.guest):
            self._stack.callback(namespaces.delete, netns)
        try:
            self._link()
            self._listen()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ── Built ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _link(self) -> None:
        for netns in (self.pod, self.peer, self.guest):
            for key in ("ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"):
                netns.write_sysctl(f"net/{key}", "0")
            _ip(netns, "link set lo up")
        for interface, other in (("eth0", self.peer), ("net1", self.guest)):
            veth = f"link add {interface} type veth peer name {interface} netns {other.path}"
            _ip(self.pod, veth)
        for netns, interface, own in (
            (self.pod, "eth0", POD),
            (self.pod, "net1", POD_NET1),
            (self.peer, "eth0", PEER),
            (self.guest, "net1", PEER_NET1),
        ):
            _ip(netns, f"addr add {own[IPFamily.IPV4]}/24 dev {interface}")
            _ip(netns, f"addr add {own[IPFamily.IPV6]}/64 dev {interface} nodad")
            _ip(netns, f"link set {interface} up")
        # Every refusal is told, however many there are a second (icmp(7)).
        self.pod.write_sysctl("net/ipv4/icmp_ratelimit", "0")
        self.pod.write_sysctl("net/ipv6/icmp/ratelimit", "0")
        self.pod.write_sysctl("net/ipv4/ip_forward", "1")
        self.pod.write_sysctl("net/ipv6/conf/all/forwarding", "1")
        for netns, gateway in ((self.pod, PEER), (self.peer, POD), (self.guest, POD_NET1)):
            for address in gateway.values():
                _ip(netns, f"-{address.version} route add default via {address}")
        for address in (address for far in FAR for address in far.values()):
            _ip(self.peer, f"addr add {address} dev lo")

    def _listen(self) -> None:
        for family in IPFamily:
            for port in PORTS:
                for protocol in Protocol:
                    self._listener(self.pod, Arrival.APPLICATION, family, protocol, port)
                    self._listener(self.peer, Arrival.PEER, family, protocol, port)
                    self._listener(self.guest, Arrival.PEER, family, protocol, port)
            own = ((OUTBOUND_PORT, Arrival.OUTBOUND), (INBOUND_PORT, Arrival.INBOUND), (TUNNEL_PORT, Arrival.TUNNEL))
            for port, arrival in own:
                self._listener(self.pod, arrival, family, Protocol.TCP, port)
            for protocol in Protocol:
                self._listener(self.pod, Arrival.DNS, family, protocol, DNS_PORT)

    def _listener(self, where: Netns, arrival: Arrival, family: IPFamily, protocol: Protocol, port: int) -> None:
        sock = self._stack.enter_context(where.open_socket(_NUMBER[family], _KIND[protocol]))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is IPFamily.IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((_ANY[family], port))
        sock.setblocking(False)
        if protocol is Protocol.TCP:
            sock.listen(256)
        self._listeners[sock.fileno()] = (sock, arrival, protocol)

    # ── Sent, and got ──────────────────────────────────────────────────────────────────────────────────────────────
    def arrivals(self, packets: Sequence[Packet]) -> list[Arrival | str]:
        """Who gets each of them, in their order; a text for what is none of what should happen."""
        found: dict[int, Arrival | str] = {}
        with ExitStack() as stack, select.epoll() as poll:
            for fd in self._listeners:
                poll.register(fd, select.EPOLLIN)
            senders: dict[int, tuple[int, socket.socket]] = {}
            for number, packet in enumerate(packets):
                where = self.pod if packet.way is Way.SENT else self.guest if packet.interface == "net1" else self.peer
                source_port = next(self._source_ports)
                try:
                    senders[source_port] = (number, where.call(self._send, stack, source_port, packet))
                except PermissionError:  # what the sender itself is told of a refusal on its way out
                    found[number] = Arrival.REFUSED
            until = time.monotonic() + _PATIENCE_S
            while len(found) < len(packets) and time.monotonic() < until:
                for fd, _ in poll.poll(0.05):
                    self._take(fd, packets, senders, found)
                for number, sock in senders.values():
                    if number not in found and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        found[number] = Arrival.REFUSED
        return [found.get(number, "lost") for number in range(len(packets))]

    def _send(self, stack: ExitStack, source_port: int, packet: Packet) -> socket.socket:
        """On a thread of the sender's namespace, which ends afterwards."""
        sock = stack.enter_context(_owned_socket(packet))
        sock.setblocking(False)
        if packet.protocol is Protocol.TCP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if packet.mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, packet.mark)
        sock.bind((str(packet.source or _ANY[packet.family]), source_port))
        with suppress(BlockingIOError):
            sock.connect((str(packet.destination), packet.port))
        if packet.protocol is Protocol.UDP:
            sock.send(b"?")
        return sock

    def _take(
        self,
        fd: int,
        packets: Sequence[Packet],
        senders: dict[int, tuple[int, socket.socket]],
        found: dict[int, Arrival | str],
    ) -> None:
        listener, arrival, protocol = self._listeners[fd]
        if protocol is Protocol.UDP:
            _, sender = listener.recvfrom(64)
            number, packet = self._whose(sender[1], packets, senders)
            if packet is not None:
                found[number] = arrival
            return
        sock, sender = listener.accept()
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            number, packet = self._whose(sender[1], packets, senders)
            if packet is not None:
                found[number] = _judged(sock, arrival, packet)

    @staticmethod
    def _whose(
        source_port: int, packets: Sequence[Packet], senders: dict[int, tuple[int, socket.socket]]
    ) -> tuple[int, Packet | None]:
        """What comes late belongs to nobody any more."""
        number = senders.get(source_port, (-1, None))[0]
        return number, packets[number] if number >= 0 else None


def _owned_socket(packet: Packet) -> socket.socket:
    """setfsuid(2) is the calling thread's alone, and what a socket's owner is taken from (net/netfilter/xt_owner.c)."""
    _LIBC.setfsgid(packet.gid)
    _LIBC.setfsuid(packet.uid)
    try:
        return socket.socket(_NUMBER[packet.family], _KIND[packet.protocol])
    finally:
        _LIBC.setfsuid(0)
        _LIBC.setfsgid(0)


def _judged(sock: socket.socket, arrival: Arrival, packet: Packet) -> Arrival | str:
    """The listener of the proxy's must see where the packet was going."""
    if arrival not in _TRANSLATED:
        return arrival
    if packet.family is IPFamily.IPV4:
        raw = sock.getsockopt(socket.SOL_IP, _ORIGINAL_DST, 16)
        address, port = ip_address(raw[4:8]), struct.unpack("!H", raw[2:4])[0]
    else:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DST, 28)
        address, port = ip_address(raw[8:24]), struct.unpack("!H", raw[2:4])[0]
    if (address, port) != (packet.destination, packet.port):
        return f"{arrival.value}, and was going to {address}:{port}"
    return arrival


def _ip(netns: Netns, line: str) -> None:
    netns.run(["ip", *line.split()])


def unique_prefix() -> str:
    return f"hg-bk{os.getpid()}-"
