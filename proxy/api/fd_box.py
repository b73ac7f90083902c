"""Boxes of the fd store (proxy.api.stream says what one is): made, looked into, emptied."""

import socket
from collections.abc import Sequence
from contextlib import suppress

from proxy.api import stream, zds


def make_box(frame: stream.BoxFrame, listeners: Sequence[int]) -> socket.socket:
    """A new box with these descriptors in it (they stay the caller's). OSError: ETOOMANYREFS when a user without
    CAP_SYS_RESOURCE has more descriptors in flight than RLIMIT_NOFILE (net/unix/af_unix.c, too_many_unix_fds)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            zds.send(theirs, stream.encode_box(frame), listeners)
        ours.setblocking(False)
    except BaseException:
        ours.close()
        raise
    return ours


def look_into(box: socket.socket) -> zds.Packet | None:
    """What is in the box, which keeps it; the descriptors are copies that the caller closes. None: it is empty.

    Raises zds.ProtocolError when it holds what no box does, OSError when it is no box.
    """
    return _packet_of(box, socket.MSG_PEEK)


def empty(box: socket.socket) -> None:
    """Close everything in the box, for everybody who holds it. Never raises; harmless when it is empty already."""
    for _ in range(2):  # once, and again should somebody have put more in than belongs there
        with suppress(zds.ProtocolError, OSError):  # what was cut off is closed too
            packet = _packet_of(box, 0)
            if packet is None:
                return
            packet.close()


def _packet_of(box: socket.socket, flags: int) -> zds.Packet | None:
    try:
        packet = zds.receive(box, stream.MAX_STORE_PACKET_BYTES, stream.MAX_BOX_LISTENERS, flags | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    return packet if packet.data else None
