"""What the real kernel does with one packet: sent, and watched. It knows nothing of rules.

A scene is a pod's namespace behind veth pairs, and what is outside. Evidence is what passes by: a packet socket sees
what leaves by each interface (after all translation), raw sockets see what is delivered here, listeners count what the
kernel hands them (a socket filter discards it: nobody answers, nothing disturbs the next), and refusals are seen as
what they are, resets and ICMP errors. All of it happens before a frame sent behind the packet through lo comes back.
"""

import ctypes
import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Self

from agent.explain.interpret import explain
from agent.explain.outcome import Explanation
from agent.explain.packet import ICMP, ICMP6, SCTP, TCP, UDP, ConntrackState, Packet, Sender, Way
from agent.explain.tables import Ruleset
from agent.kernel.surroundings import KernelSurroundings
from agent.pods import IPAddress
from tests.netns.explain.cleared import clear
from tests.netns.explain.tracked import establish, forget_all
from tests.netns.explain.wire import Parsed, build, is_packet, is_refusal, number, of_body, parse
from tests.netns.kernel.scratch import Scratch

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PATIENCE_S: Final = 5.0
_SENTINEL: Final = 0x88B5  # IEEE 802: local experimental ethertype
_ETH_P_ALL: Final = 0x0003
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_OUTGOING: Final = 4  # linux/if_packet.h: PACKET_OUTGOING
_SO_MEMINFO, _DROPS = 55, 8  # asm-generic/socket.h; linux/sock_diag.h: SK_MEMINFO_DROPS
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_IP_PKTINFO, _IPV6_HDRINCL = 8, 36
_RECEIVED_BYTES: Final = 4096
_DISCARD: Final = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: 0 bytes of it are wanted
_PROTOCOLS: Final = {4: (TCP, UDP, ICMP, SCTP), 6: (TCP, UDP, ICMP6, SCTP)}
_MAC: Final = "02:00:00:00:00:05"
"""Of all interfaces of the pod."""
_GATEWAYS: Final = ("10.0.0.9", "fd00::9")
_FIRST_PORT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of the pod and its addresses with their prefix, as `10.0.0.5/24`."""

    name: str
    addresses: tuple[str, ...]


LINKS: Final = (Link("eth0", ("10.0.0.5/24", "fd00::5/64")), Link("net1", ("10.9.0.5/24", "fd09::5/64")))


@dataclass(frozen=True, slots=True)
class End:
    """A packet at the end of its way, as it is by then."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int


@dataclass(frozen=True, slots=True)
class Seen:
    """`delivered`: to this namespace; `listener`: the port of the listening socket that got it, None: no socket of the
    scene's. `left`, `by`: what left, and the interface; never lo. `refused`: `tcp reset` or `icmp TYPE CODE`, as who
    sent it is told. `error`: errno that the sender was told at once. `source`, `source_port`: as sent."""

    source: IPAddress | None
    source_port: int
    delivered: End | None = None
    listener: int | None = None
    left: End | None = None
    by: str = ""
    refused: str = ""
    error: int = 0

    @property
    def end(self) -> End | None:
        return self.delivered or self.left


@dataclass(slots=True)
class Scene:
    """Context manager. `listeners`: (protocol, port) on which a transparent socket listens, on every address of both
    families. `forwards`: whether the pod forwards; `rp_filter`: of all its interfaces."""

    links: Sequence[Link] = LINKS
    listeners: Sequence[tuple[int, int]] = ()
    gateways: Sequence[str] = _GATEWAYS
    forwards: bool = True
    rp_filter: int = 0
    pod: Scratch = field(init=False)
    outside: Scratch = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)
    _wire: dict[str, socket.socket] = field(default_factory=dict)
    _raw: dict[tuple[int, int | None, int | None], socket.socket] = field(default_factory=dict)
    _sniffer: socket.socket = field(init=False)
    _loopback: socket.socket = field(init=False)
    _delivered: list[tuple[int, socket.socket]] = field(default_factory=list)
    _listening: list[tuple[socket.socket, int, int]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _known: set[tuple[object, ...]] = field(default_factory=set)
    _sources: dict[tuple[object, ...], IPAddress | None] = field(default_factory=dict)

    # ── Built ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def __enter__(self) -> Self:
        try:
            self.pod = self._stack.enter_context(Scratch())
            self.outside = self._stack.enter_context(Scratch())
            self._configure()
            for link in self.links:
                self._link(link)
            for gateway in self.gateways:
                self.pod.shell("ip", f"-{ip_address(gateway).version}", "route", "add", "default", "via", gateway)
            self.pod.run(self._watch)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _configure(self) -> None:
        self.pod.shell("ip", "link", "set", "lo", "up")
        settings = {
            "net.ipv4.conf.all.rp_filter": self.rp_filter,
            "net.ipv4.conf.default.rp_filter": self.rp_filter,
            "net.ipv4.ip_forward": int(self.forwards),
            "net.ipv6.conf.all.forwarding": int(self.forwards),
            # Every refusal is told, however many there are a second (icmp(7)).
            "net.ipv4.icmp_ratelimit": 0,
            "net.ipv6.icmp.ratelimit": 0,
            "net.ipv4.icmp_msgs_per_sec": 1_000_000,
            "net.ipv4.icmp_msgs_burst": 100_000,
            "net.netfilter.nf_conntrack_checksum": 0,
            "net.ipv6.conf.default.accept_ra": 0,
            "net.ipv6.conf.default.router_solicitations": 0,
        }
        self.pod.shell("sysctl", "-qw", *(f"{key}={value}" for key, value in settings.items()))
        self.outside.shell("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")

    def _link(self, link: Link) -> None:
        inside = self.pod.shell
        self.outside.shell("ip", "link", "add", link.name, "type", "veth", "peer", link.name, "netns", self.pod.path)
        self.outside.shell("ip", "link", "set", link.name, "up")
        # Nobody outside answers: without ARP what leaves leaves at once, to whichever address.
        inside("ip", "link", "set", link.name, "address", _MAC, "arp", "off", "up")
        for address in link.addresses:
            inside("ip", "addr", "add", address, "dev", link.name, *(("nodad",) if ":" in address else ()))
        sock = self._keep(self.outside.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0))
        sock.bind((link.name, 0))
        self._wire[link.name] = sock

    def _watch(self) -> None:
        """On a thread of the pod's namespace."""
        self._sniffer = self._keep(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)))
        self._sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sniffer.settimeout(_PATIENCE_S)
        self._loopback = self._keep(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
        self._loopback.bind(("lo", 0))
        for version, protocols in _PROTOCOLS.items():
            for protocol in protocols:
                self._delivered.append((version, self._delivery(version, protocol)))
        for protocol, port in self.listeners:
            for version in (4, 6):
                self._listening.append((self._listener(version, protocol, port), protocol, port))

    def _delivery(self, version: int, protocol: int) -> socket.socket:
        sock = self._keep(socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, protocol))
        sock.setblocking(False)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        return sock

    def _listener(self, version: int, protocol: int, port: int) -> socket.socket:
        kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
        sock = self._keep(socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind))
        if version == 4:
            sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        code = ctypes.create_string_buffer(_DISCARD)
        program = struct.pack("HL", 1, ctypes.addressof(code))
        sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
        sock.bind(("", port))
        if protocol == TCP:
            sock.listen(1)
        return sock

    def _keep(self, sock: socket.socket) -> socket.socket:
        return self._stack.enter_context(sock)

    # ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def nft(self, script: str) -> None:
        self.pod.shell("sh", "-c", f"exec nft -f - <<'END'\n{script}\nEND\n")

    def restore(self, tool: str, text: str) -> None:
        """`tool`: iptables-nft, ip6tables-legacy …; `text`: as iptables-restore(8) takes it."""
        self.pod.shell("sh", "-c", f"exec {tool}-restore --noflush <<'END'\n{text}\nEND\n")

    def clear(self) -> None:
        """No rule is left, of whichever tool; connections are forgotten."""
        clear(self.pod)
        self.forget()

    def forget(self) -> None:
        """What conntrack knows, and what the scene remembers of the kernel's choices of source."""
        self.pod.run(forget_all)
        self._known.clear()
        self._sources.clear()

    def explained(self, ruleset: Ruleset, packet: Packet) -> Explanation:
        """What is to be proved, with the pod's own routes, sockets and addresses."""
        return self.pod.run(lambda: explain(ruleset, packet, KernelSurroundings()))

    # ── Sent, and seen ─────────────────────────────────────────────────────────────────────────────────────────────
    def send(self, packet: Packet) -> Seen:
        """What becomes of it. TimeoutError when the kernel is not done within seconds. Of an ESTABLISHED packet its
        connection is made known to conntrack before; UNTRACKED and RELATED cannot be sent."""
        turn = next(self._numbers)
        token = 0x1DE00000 + turn
        source = packet.source or self._source(packet)
        source_port = packet.source_port or _FIRST_PORT + turn % 40_000
        if source is None:
            return Seen(None, source_port, error=errno.ENETUNREACH)
        self._afresh(packet, source, source_port)
        data = build(packet, source, source_port, token)
        before = [_drops(sock) for sock, _, _ in self._listening]
        error = 0
        with _on_one_cpu():
            self._empty()
            try:
                if packet.way is Way.OUTBOUND:
                    self._send_from_here(packet, data)
                else:
                    self._inject(packet, data)
            except OSError as failure:
                if failure.errno is None:
                    raise
                error = failure.errno
            self._loopback.sendto(b"\0" * 46, ("lo", _SENTINEL))
            return self._seen(packet, source, source_port, token.to_bytes(4, "big"), before, error)

    def _afresh(self, packet: Packet, source: IPAddress, source_port: int) -> None:
        flow = (packet.protocol, source, source_port, packet.destination, packet.destination_port)
        if flow in self._known:
            self.forget()
        self._known.add(flow)
        if packet.state is ConntrackState.ESTABLISHED:
            self.pod.run(establish, packet, source, source_port)

    def _source(self, packet: Packet) -> IPAddress | None:
        """The kernel's own choice for a socket of that user with that mark; None: there is no route."""
        sender = packet.sender or Sender()
        asked = (packet.destination, packet.mark, sender.uid)
        if asked not in self._sources:
            self._sources[asked] = self.pod.run(_chosen, packet.destination, packet.mark, sender)
        return self._sources[asked]

    def _send_from_here(self, packet: Packet, data: bytes) -> None:
        sender = packet.sender or Sender()
        version = packet.destination.version
        key = (version, sender.uid, sender.gid)
        if (sock := self._raw.get(key)) is None:
            sock = self._raw[key] = self._keep(self.pod.run(_raw_socket, version, sender))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, packet.mark)
        control: list[tuple[int, int, bytes]] = []
        if packet.source is not None and version == 4:  # routed by its source, as a socket that is bound to it
            control.append((socket.SOL_IP, _IP_PKTINFO, struct.pack("=i4s4x", 0, packet.source.packed)))
        to = (str(packet.destination), 0) if version == 4 else (str(packet.destination), 0, 0, 0)
        sock.sendmsg([data], control, 0, to)

    def _inject(self, packet: Packet, data: bytes) -> None:
        sock = self._wire[packet.interface or self.links[0].name]
        kind = _ETH_P_IP if packet.destination.version == 4 else _ETH_P_IPV6
        sock.send(bytes.fromhex(_MAC.replace(":", "")) + b"\x02\0\0\0\0\1" + kind.to_bytes(2, "big") + data)

    # ── Evidence ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _empty(self) -> None:
        self._sniffer.setblocking(False)
        for sock in (self._sniffer, *(sock for _, sock in self._delivered)):
            while True:
                try:
                    sock.recv(_RECEIVED_BYTES)
                except BlockingIOError:
                    break
        self._sniffer.settimeout(_PATIENCE_S)

    def _seen(
        self, packet: Packet, source: IPAddress, source_port: int, token: bytes, before: list[int], error: int
    ) -> Seen:
        left, by, refused = None, "", ""
        for interface, parsed in self._passing():
            if is_packet(parsed, packet, token):
                if interface != "lo":
                    left, by = _end(parsed), interface
            elif is_refusal(parsed, packet, token):
                refused = "tcp reset" if parsed.icmp is None else f"icmp {parsed.icmp[0]} {parsed.icmp[1]}"
        delivered = next((_end(parsed) for parsed in self._arrived() if is_packet(parsed, packet, token)), None)
        got = [
            port
            for (sock, _, port), drops in zip(self._listening, before, strict=True)
            if drops != _drops(sock)
        ]  # fmt: skip
        # Who answers with a refusal found no socket; the answer itself may have been given to one.
        listener = got[0] if got and not refused else None
        return Seen(source, source_port, delivered, listener, left, by, refused, error)

    def _passing(self) -> Iterator[tuple[str, Parsed]]:
        """What left by each interface, until the frame that was sent behind it is back."""
        while True:
            data, (interface, kind, direction, _, _) = self._sniffer.recvfrom(_RECEIVED_BYTES)
            if kind == _SENTINEL and direction != _OUTGOING:
                return
            if direction == _OUTGOING and (parsed := parse(data)) is not None:
                yield interface, parsed

    def _arrived(self) -> Iterator[Parsed]:
        for version, sock in self._delivered:
            while True:
                try:
                    data, control, _, sender = sock.recvmsg(_RECEIVED_BYTES, 64)
                except BlockingIOError:
                    break
                if version == 4:
                    parsed = parse(data)
                else:
                    to = ip_address(next(value for _, _, value in control)[:16])
                    parsed = of_body(sock.proto, ip_address(sender[0].partition("%")[0]), to, data)
                if parsed is not None:
                    yield parsed


def _drops(sock: socket.socket) -> int:
    return int(struct.unpack_from("=I", sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36), 4 * _DROPS)[0])


def _end(parsed: Parsed) -> End:
    return End(parsed.source, parsed.ports[0], parsed.destination, parsed.ports[1])


def _raw_socket(version: int, sender: Sender) -> socket.socket:
    """setfsuid(2) is the calling thread's alone, and what a socket's owner is taken from (net/netfilter/xt_owner.c)."""
    _LIBC.setfsgid(sender.gid or 0)
    _LIBC.setfsuid(sender.uid or 0)
    try:
        kind = socket.AF_INET if version == 4 else socket.AF_INET6
        sock = socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW)
    finally:
        _LIBC.setfsuid(0)
        _LIBC.setfsgid(0)
    if version == 4:
        sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    return sock


def _chosen(destination: IPAddress, mark: int, sender: Sender) -> IPAddress | None:
    _LIBC.setfsuid(sender.uid or 0)
    try:
        sock = socket.socket(number(destination), socket.SOCK_DGRAM)
    finally:
        _LIBC.setfsuid(0)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            sock.connect((str(destination), 9))
        except OSError as failure:
            if failure.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return None
            raise
        return ip_address(sock.getsockname()[0].partition("%")[0])


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """Packets that one processor queues are served in their order; what follows is then behind."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
