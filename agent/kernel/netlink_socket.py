"""A netlink socket that can keep the interpreter's lock while the kernel answers.

To give the lock up for a call of some microseconds costs several times the call as soon as another thread waits for it,
and a look at a pod makes a hundred such calls: with 250 pods a seventh of the agent's time (docs/scale.md, Starting).
By ctypes, as setns(2) is called (agent.kernel.netns): Python's own sockets give it up always.
"""

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_BUFFER_BYTES: Final = 1 << 16
"""Dumps come in pieces of at most 32 KiB (net/netlink/af_netlink.c: netlink_dump)."""
_INT: Final = struct.Struct("@i")


@dataclass(frozen=True, slots=True)
class _Calls:
    """socket(2), setsockopt(2), send(2), recv(2), close(2)."""

    socket: Callable[..., int]
    setsockopt: Callable[..., int]
    send: Callable[..., int]
    recv: Callable[..., int]
    close: Callable[..., int]


def _calls(library: Any) -> _Calls:
    of_int, pointer, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
    library.socket.argtypes = (of_int, of_int, of_int)
    library.setsockopt.argtypes = (of_int, of_int, of_int, ctypes.c_char_p, ctypes.c_uint32)
    library.send.argtypes = (of_int, ctypes.c_char_p, size, of_int)
    library.recv.argtypes = (of_int, pointer, size, of_int)
    library.close.argtypes = (of_int,)
    library.send.restype = library.recv.restype = ctypes.c_ssize_t
    return _Calls(library.socket, library.setsockopt, library.send, library.recv, library.close)


_KEEPING: Final = _calls(ctypes.PyDLL(None, use_errno=True))
_GIVING: Final = _calls(ctypes.CDLL(None, use_errno=True))


class _Thread(threading.local):
    """A buffer for each thread."""

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(_BUFFER_BYTES)


_thread: Final = _Thread()


class NetlinkSocket:
    """In the calling thread's namespace, which it pins: close it promptly.

    `brief`: no send and no receive takes the kernel long: it walks over no table that grows with the node (conntrack,
    sockets), waits for no grace period (a transaction) and for no lock of others (the RTNL). Else the interpreter's
    lock is given up for both. Raises OSError.
    """

    __slots__ = ("_calls", "_fd")

    def __init__(self, protocol: int, *, brief: bool = False) -> None:
        self._calls = _KEEPING if brief else _GIVING
        self._fd = _KEEPING.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        if self._fd < 0:
            raise _failed()

    def set(self, level: int, option: int, value: int) -> None:
        """Raises OSError."""
        if _KEEPING.setsockopt(self._fd, level, option, _INT.pack(value), _INT.size) < 0:
            raise _failed()

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        while self._calls.send(self._fd, data, len(data), 0) < 0:
            if ctypes.get_errno() != errno.EINTR:
                raise _failed()

    def receive(self) -> bytes:
        """What is there, one message of the socket's. Never waits: the kernel has answered, and gone on with a dump,
        before a send or a receive returns (net/netlink/af_netlink.c: netlink_unicast_kernel, netlink_recvmsg). Raises
        BlockingIOError when nothing is there, OSError."""
        buffer = _thread.buffer
        while (length := self._calls.recv(self._fd, buffer, _BUFFER_BYTES, socket.MSG_DONTWAIT)) < 0:
            if ctypes.get_errno() != errno.EINTR:
                raise _failed()
        return ctypes.string_at(buffer, length)

    def close(self) -> None:
        """Closing twice is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _KEEPING.close(fd)


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
