"""A packet's network and transport headers, as far as they say who sends what to whom. Pure.

What is cut short or not known is absent, never guessed: these bytes come from whoever sends packets to the node.
Layouts: RFC 791, 8200, 9293, 768, 792, 4443.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.explain.packet import ACK, FIN, ICMP, ICMP6, PSH, RST, SCTP, SYN, TCP, UDP, URG
from agent.pods import IPAddress

IPV4, IPV6 = 2, 10
"""linux/netfilter.h: NFPROTO_*"""
_IPV4: Final = struct.Struct(">BBHHHBBH4s4s")
_IPV6: Final = struct.Struct(">IHBB16s16s")
_TCP: Final = struct.Struct(">HHIIBB")
_PORTS: Final = struct.Struct(">HH")
_ICMP: Final = struct.Struct(">BBHHH")
_OFFSET: Final = 0x1FFF  # of a fragment, in eight bytes; only the first one has the transport's header
_WITH_PORTS: Final = frozenset({TCP, UDP, SCTP, 33, 136})  # and DCCP, UDP-Lite
_EXTENSIONS: Final = frozenset({0, 43, 44, 60, 135})  # RFC 7045: what stands between IPv6's header and the transport's

_NAMES: Final = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmpv6", SCTP: "sctp"}
_FLAGS: Final = ((SYN, "syn"), (FIN, "fin"), (RST, "rst"), (PSH, "psh"), (ACK, "ack"), (URG, "urg"))
_ECHOES: Final = {(ICMP, 8): "echo request", (ICMP, 0): "echo reply", (ICMP6, 128): "echo request"}

Identity = tuple[int | bytes, ...]
"""What translation leaves as it is: by it a packet is known again on its second way, over lo."""


@dataclass(frozen=True, slots=True)
class Headers:
    """`protocol`: the transport's IANA number. None: the packet has no such field, or it was not to be seen."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    tcp_flags: int | None = None
    icmp_type: int | None = None
    identity: Identity = ()

    @property
    def ends(self) -> tuple[IPAddress, int | None, IPAddress, int | None]:
        return self.source, self.source_port, self.destination, self.destination_port

    @property
    def opens_connection(self) -> bool:
        """SYN and neither ACK, RST nor FIN; of what is not TCP nobody can tell by the packet."""
        return self.tcp_flags is None or self.tcp_flags & (SYN | ACK | RST | FIN) == SYN

    @property
    def kind(self) -> str:
        """`tcp syn`, `udp`, `icmp type 8`."""
        name = protocol_name(self.protocol)
        if self.tcp_flags is not None:
            return f"{name} {','.join(word for bit, word in _FLAGS if self.tcp_flags & bit) or 'no flags'}"
        if self.icmp_type is not None:
            return f"{name} {_ECHOES.get((self.protocol, self.icmp_type), f'type {self.icmp_type}')}"
        return name


def of(nfproto: int, network: bytes, transport: bytes) -> Headers | None:
    """None when that is neither IPv4 nor IPv6, or not even an address can be read."""
    if nfproto == IPV4 and len(network) >= _IPV4.size:
        _, _, length, ident, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(network)
        identity: Identity = (protocol, ident, length, fragment)
        return _with_transport(
            IPv4Address(source), IPv4Address(destination), protocol, b"" if fragment & _OFFSET else transport, identity
        )
    if nfproto == IPV6 and len(network) >= _IPV6.size:
        label, length, protocol, _, source, destination = _IPV6.unpack_from(network)
        return _with_transport(
            IPv6Address(source),
            IPv6Address(destination),
            protocol,
            b"" if protocol in _EXTENSIONS else transport,
            (protocol, label & 0xFFFFF, length),
        )
    return None


def _with_transport(
    source: IPAddress, destination: IPAddress, protocol: int, data: bytes, identity: Identity
) -> Headers:
    if protocol == TCP and len(data) >= _TCP.size:
        here, there, sequence, acknowledged, _, flags = _TCP.unpack_from(data)
        return Headers(
            source, destination, protocol, here, there, flags, None, (*identity, sequence, acknowledged, flags)
        )
    if protocol in _WITH_PORTS and len(data) >= _PORTS.size:
        here, there = _PORTS.unpack_from(data)
        return Headers(source, destination, protocol, here, there, None, None, identity)
    if protocol in (ICMP, ICMP6) and len(data) >= _ICMP.size:
        kind, code, _, _, sequence = _ICMP.unpack_from(data)
        return Headers(source, destination, protocol, None, None, None, kind, (*identity, kind, code, sequence))
    return Headers(source, destination, protocol, identity=identity)


def protocol_name(number: int) -> str:
    return _NAMES.get(number, f"protocol {number}")


def end(address: IPAddress, port: int | None) -> str:
    """`10.0.0.1:80`, `[fd00::1]:80`, `10.0.0.1`."""
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
