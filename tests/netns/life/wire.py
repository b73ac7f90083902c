"""What really leaves and enters a pod: a capture on the node's end of its veth pair."""

from __future__ import annotations

import socket
import struct
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Final, Self

from agent.lab.namespaces import Netns

_ETH_P_ALL: Final = 0x0003  # linux/if_ether.h
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h
_BUFFER_BYTES: Final = 64 << 20
_TCP: Final = 6
_LAST_S: Final = 0.5
"""Of reading on after the end where others never fall silent."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment as it was on the wire."""

    source: IPv4Address | IPv6Address
    source_port: int
    destination: IPv4Address | IPv6Address
    destination_port: int
    payload: bytes

    @property
    def ends(self) -> frozenset[tuple[IPv4Address | IPv6Address, int]]:
        """Both ends of its connection, whichever way it went."""
        return frozenset(((self.source, self.source_port), (self.destination, self.destination_port)))


class Capture:
    """Every frame on `interface` of a namespace, both ways, from `with` until its end; `segments` are those of TCP."""

    def __init__(self, netns: Netns, interface: str) -> None:
        self._socket = netns.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((interface, _ETH_P_ALL))  # not before: until then it would hear every interface
        self._socket.settimeout(0.05)
        self._stopping = threading.Event()
        self._frames: list[bytes] = []
        self._thread = threading.Thread(target=self._run, name="capture")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        try:
            _, lost = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        finally:
            self._socket.close()
        assert lost == 0, f"the capture missed {lost} frames: what it did not see proves nothing"

    @property
    def segments(self) -> list[Segment]:
        return [segment for frame in self._frames if (segment := _segment(frame)) is not None]

    def _run(self) -> None:
        # Frames that were on the wire before the end are read first: only then is a leak's absence a fact.
        until = float("inf")
        while time.monotonic() < until:
            if self._stopping.is_set() and until == float("inf"):
                until = time.monotonic() + _LAST_S
            try:
                self._frames.append(self._socket.recv(65536))
            except TimeoutError:
                if self._stopping.is_set():
                    return


def _segment(frame: bytes) -> Segment | None:
    """None for what is not TCP over IPv4 or IPv6 (no extension headers: nothing here sends any)."""
    kind = int.from_bytes(frame[12:14], "big")
    packet = frame[14:]
    if kind == 0x0800 and packet[9] == _TCP:
        header = (packet[0] & 15) * 4
        total = int.from_bytes(packet[2:4], "big")
        source: IPv4Address | IPv6Address = IPv4Address(packet[12:16])
        destination: IPv4Address | IPv6Address = IPv4Address(packet[16:20])
    elif kind == 0x86DD and packet[6] == _TCP:
        header = 40
        total = 40 + int.from_bytes(packet[4:6], "big")
        source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    else:
        return None
    tcp = packet[header:total]
    source_port, destination_port = struct.unpack_from("!HH", tcp)
    return Segment(source, source_port, destination, destination_port, tcp[(tcp[12] >> 4) * 4 :])
