"""TCP sockets of the namespace that the calling thread is in, by sock_diag(7).

Numbers are of linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
"""

import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from agent.kernel.netlink import Message, Netlink, attributes
from agent.plan import FlowTuple
from agent.pods import IPAddress
from agent.printable import printable

_NETLINK_SOCK_DIAG: Final = 4
_TCPDIAG_GETSOCK: Final = 18
_INET_DIAG_MARK: Final = 15

_LISTEN: Final = 10
# ESTABLISHED 1, SYN_SENT 2, SYN_RECV 3, FIN_WAIT1 4, FIN_WAIT2 5, CLOSE_WAIT 8, LAST_ACK 9, CLOSING 11
_LIVING: Final = (1, 2, 3, 4, 5, 8, 9, 11)

# struct inet_diag_req: family (not read), lengths of addresses, extensions, struct inet_diag_sockid (all zero: any),
# states, tables. The older of two requests, because it alone asks for both families at once (inet_diag.c:
# inet_diag_dump_compat): each reading walks the whole machine's table of connections, 0.19 ms at its 262,144 buckets.
_REQUEST: Final = struct.Struct("=4x48xII")
# struct inet_diag_msg: family, state, timer, retransmits, source and destination port (network order), addresses,
# interface, cookie, expires, receive and send queue, uid, inode
_ANSWER: Final = struct.Struct("=BBBB2s2s16s16sIQIIIII")

_SOCKET_LINK: Final = re.compile(r"socket:\[(\d+)\]")
_COMMAND_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket. An unspecified IPv6 address may also take IPv4: assume that it does.

    `mark` is its SO_MARK (the proxy's own listeners carry one), None when the kernel did not tell.
    """

    address: IPAddress
    port: int
    inode: int
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """A process that holds a socket; `command` is its own claim (comm), made printable."""

    pid: int
    command: str


def established() -> tuple[FlowTuple, ...]:
    """The living TCP connections: every state from SYN_SENT to LAST_ACK.

    Not TIME_WAIT: nothing of the application's is in it any more, and there may be 28,000 of them. Raises OSError.
    """
    return tuple(
        FlowTuple(local, local_port, remote, remote_port, _mark(data))
        for (local, local_port, remote, remote_port, _), data in _dump(_LIVING)
    )


def listeners() -> tuple[Listener, ...]:
    """The listening TCP sockets. Who holds one: `owner_of`, asked only when somebody wants to know. Raises OSError."""
    return tuple(Listener(local, port, inode, _mark(data)) for (local, port, _, _, inode), data in _dump((_LISTEN,)))


def owner_of(inode: int, proc: Path = Path("/proc")) -> SocketOwner | None:
    """The process with the lowest pid that holds socket `inode`; None when none is visible from here.

    Reads the descriptors of every process: for a message to a person, never for a decision.
    """
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()):
        try:
            if any(_is_socket(link, inode) for link in (proc / str(pid) / "fd").iterdir()):
                command = (proc / str(pid) / "comm").read_bytes().decode("utf-8", "replace").strip("\n")
                return SocketOwner(pid, printable(command, _COMMAND_CHARACTERS))
        except OSError:
            continue  # it ended meanwhile, or is not ours to read
    return None


def _is_socket(link: Path, inode: int) -> bool:
    try:
        found = _SOCKET_LINK.fullmatch(str(link.readlink()))
    except OSError:
        return False  # the descriptor was closed meanwhile
    return found is not None and int(found.group(1)) == inode


_Answer = tuple[IPAddress, int, IPAddress, int, int]


def _dump(states: tuple[int, ...]) -> Iterator[tuple[_Answer, bytes]]:
    bits = sum(1 << state for state in states)
    with Netlink(_NETLINK_SOCK_DIAG) as netlink:
        for data in netlink.dump(Message(_TCPDIAG_GETSOCK, 0, _REQUEST.pack(bits, 0))):
            yield _read(data), data


def _read(data: bytes) -> _Answer:
    family, _, _, _, sport, dport, source, destination, *_, inode = _ANSWER.unpack_from(data)
    length = 4 if family == socket.AF_INET else 16
    return (
        _plain(source[:length]),
        int.from_bytes(sport, "big"),
        _plain(destination[:length]),
        int.from_bytes(dport, "big"),
        inode,
    )


def _plain(raw: bytes) -> IPAddress:
    """An IPv4 connection of an IPv6 socket (::ffff:a.b.c.d) is IPv4 to netfilter, so to us."""
    address = ip_address(raw)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _mark(data: bytes) -> int | None:
    """SO_MARK; the kernel tells it to CAP_NET_ADMIN only (inet_diag.c: inet_diag_msg_attrs_fill)."""
    raw = attributes(data[_ANSWER.size :]).get(_INET_DIAG_MARK)
    return None if raw is None else int(struct.unpack("=I", raw)[0])
