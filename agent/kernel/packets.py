"""Every packet of a namespace, on all its interfaces, as packet(7) hands them out.

What is sent here is seen after all rules (net/core/dev.c: dev_queue_xmit_nit), what arrives before any
(__netif_receive_skb_core). Numbers are of linux/if_packet.h, linux/if_ether.h and asm-generic/socket.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

_ETH_P_ALL: Final = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_TIMESPEC: Final = struct.Struct("@qq")
_AUXDATA: Final = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_ETH_P_8021Q: Final = 0x8100
_STATISTICS: Final = struct.Struct("=II")  # packets, drops; both since they were last asked for
_MACS: Final = 12
_ETHERNET_KINDS: Final = frozenset({1, 772})

_ROOM: Final = 1 << 18
"""A packet that the card is to cut up (GSO) has 64 KiB, since Linux 6.3 up to 512 KiB where gso_max_size says so."""
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_AUXDATA.size)
BUFFER_BYTES: Final = 64 << 20

HOST, BROADCAST, MULTICAST, OTHERHOST, OUTGOING = range(5)
"""`Frame.kind`: PACKET_*."""


@dataclass(slots=True)
class Frame:
    """`interface`: its name when the packet was read; empty when it had gone. `hardware`: ARPHRD_* of linux/if_arp.h.
    `data`: at most as much as was asked for, of `length` bytes. `time_ns`: since the epoch, the kernel's own. Not
    frozen: tens of thousands are made a second."""

    interface: str
    hardware: int
    kind: int
    time_ns: int
    data: bytes
    length: int


class PacketSocket:
    """Of the namespace in which it is made, and pins it: close promptly. It hears from then on.

    Raises OSError when the kernel refuses (PermissionError: CAP_NET_RAW in that namespace). `unnamed`: packets
    that were not told, because their interface's name is no UTF-8.
    """

    __slots__ = ("_buffer", "_lost", "_snaplen", "_socket", "unnamed")

    def __init__(self, snaplen: int, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._snaplen = snaplen
        self._lost = self.unnamed = 0
        self._buffer = bytearray(_ROOM)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        except PermissionError as error:
            raise PermissionError(error.errno, f"{error.strerror}: to hear packets takes CAP_NET_RAW") from error
        try:
            with suppress(OSError):  # without CAP_NET_ADMIN over the node the usual buffer must do; losses are counted
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, at_most: int) -> Iterator[Frame]:
        """Packets that are there, at most so many. What goes over lo is seen twice by the kernel, and told once, as it
        arrives."""
        for _ in range(at_most):
            try:
                size, ancillary, _, sender = self._socket.recvmsg_into([self._buffer], _ANCILLARY)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.ENETDOWN, errno.ENODEV):  # one of the interfaces went
                    continue
                raise
            except UnicodeDecodeError:  # socketmodule.c: makesockaddr; whoever is root in the pod may name it so
                self.unnamed += 1
                continue
            interface, _, kind, hardware = sender[:4]
            if interface == "lo" and kind == OUTGOING:
                continue
            frame = self._frame(size, ancillary, interface, kind, hardware)
            if frame.time_ns:  # else it came before the socket was told to tell the time
                yield frame

    def _frame(
        self, size: int, ancillary: list[tuple[int, int, bytes]], interface: str, kind: int, hardware: int
    ) -> Frame:
        data = bytes(self._buffer[: min(size, self._snaplen)])
        time_ns, length = 0, size
        for _, number, value in ancillary:
            if number == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                time_ns = seconds * 1_000_000_000 + nanoseconds
            elif number == _PACKET_AUXDATA:
                status, length, _, _, _, tag, protocol = _AUXDATA.unpack(value)
                if status & _VLAN_VALID and hardware in _ETHERNET_KINDS:
                    # The kernel takes a tag out of the packet; on the wire it was there (as libpcap puts it back).
                    protocol = protocol if status & _VLAN_TPID_VALID else _ETH_P_8021Q
                    data = (data[:_MACS] + struct.pack(">HH", protocol, tag) + data[_MACS:])[: self._snaplen]
                    length += 4
        return Frame(interface, hardware, kind, time_ns, data, length)

    def lost(self) -> int:
        """Packets that found the buffer full, since the socket was made."""
        counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self._lost += int(_STATISTICS.unpack(counted)[1])
        return self._lost
