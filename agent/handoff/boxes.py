"""What a box of listeners really holds, asked of the kernel: nothing that a proxy says about it is taken on trust."""

import socket
import stat
import sys
from contextlib import ExitStack
from os import fstat
from typing import Final

from proxy.api import fd_box, stream, zds
from proxy.api.constants import PROXY_PORTS
from proxy.api.stream import BoxedListener

_SO_NETNS_COOKIE: Final = 71
"""include/uapi/asm-generic/socket.h, since Linux 5.14; Python has no name for it."""
_FAMILIES: Final = {socket.AF_INET: 4, socket.AF_INET6: 6}
MAX_LISTENERS: Final = 2 * len(PROXY_PORTS)
"""One a port and family (DESIGN 6)."""


class NotABox(Exception):
    """What came is not a pod's listeners: the text says in what."""


def check(box: socket.socket, uid: str, netns_cookie: int) -> None:
    """Raises NotABox unless the box holds listening TCP sockets of exactly this namespace on ports of ours, each once.

    Looks at copies and closes them: afterwards nothing but the box itself pins the namespace.
    """
    _check_socket(box)
    try:
        packet = fd_box.look_into(box)
    except (OSError, zds.ProtocolError) as error:
        raise NotABox(f"it cannot be looked into: {error}") from error
    if packet is None:
        raise NotABox("it is empty")
    with ExitStack() as copies:
        copies.callback(packet.close)
        try:
            frame = stream.decode_box(packet.data)
        except stream.InvalidMessage as error:
            raise NotABox(f"its frame: {error}") from error
        if (frame.uid, frame.netns_cookie) != (uid, netns_cookie):
            raise NotABox("its frame names another pod than the deposit")
        if len(packet.descriptors) != len(frame.listeners):
            raise NotABox(f"{len(packet.descriptors)} descriptors, {len(frame.listeners)} in its frame")
        if len(packet.descriptors) > MAX_LISTENERS:
            raise NotABox(f"{len(packet.descriptors)} descriptors; a pod has {MAX_LISTENERS} listeners at most")
        found = [_listener(descriptor, netns_cookie) for descriptor in packet.descriptors]
        if tuple(found) != frame.listeners:
            raise NotABox("its frame names other ports or families than its sockets have")
        if len(set(found)) != len(found):
            raise NotABox("two listeners of one port and family")


def same(one: socket.socket, other: socket.socket) -> bool:
    """Two descriptors of the same box (sockfs numbers each socket)."""
    return fstat(one.fileno()).st_ino == fstat(other.fileno()).st_ino


def _check_socket(box: socket.socket) -> None:
    if (box.family, box.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise NotABox("no SEQPACKET socket of the Unix domain")
    if box.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise NotABox("a listening socket")


def _listener(descriptor: int, netns_cookie: int) -> BoxedListener:
    if not stat.S_ISSOCK(fstat(descriptor).st_mode):
        raise NotABox("a descriptor in it is no socket")
    # Its own descriptor, closed by the caller: this object must not close it.
    sock = socket.socket(fileno=descriptor)
    try:
        return _read(sock, netns_cookie)
    except OSError as error:
        raise NotABox(f"a socket in it cannot be asked: {error.strerror}") from error
    finally:
        sock.detach()


def _read(sock: socket.socket, netns_cookie: int) -> BoxedListener:
    family = _FAMILIES.get(sock.family)
    if family is None or sock.type != socket.SOCK_STREAM or sock.proto != socket.IPPROTO_TCP:
        raise NotABox("a socket in it is no TCP socket")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise NotABox("a socket in it does not listen")
    cookie = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    if cookie != netns_cookie:
        raise NotABox("a socket in it is of another network namespace")
    port = int(sock.getsockname()[1])
    if port not in PROXY_PORTS:
        raise NotABox(f"a socket in it listens on port {port}, which is none of the proxy's")
    return BoxedListener(port, family)
