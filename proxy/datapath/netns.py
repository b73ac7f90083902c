"""Entering a pod's network namespace for the length of a socket() call.

`setns` moves the calling thread, and a thread that keeps serving in the wrong namespace would open every later socket
there. So an entry is one synchronous stretch (never an await inside), and a failed return ends the process
(istio/ztunnel src/inpod/netns.rs panics for the same reason).
"""

import ctypes
import os
import socket
import sys
from contextlib import suppress
from typing import Final, NoReturn

CLONE_NEWNET: Final = 0x40000000
"""include/uapi/linux/sched.h"""
SO_NETNS_COOKIE: Final = 71
"""include/uapi/asm-generic/socket.h, since Linux 5.14"""
CANNOT_RETURN_STATUS: Final = 70
"""Exit status of a process that could not leave a namespace (EX_SOFTWARE, sysexits.h)."""

# PyDLL, not CDLL: giving up the GIL around a call of two microseconds costs more than the call, and would let another
# thread run while this one is away. Without argtypes and errno keeping (1 µs each pair): the arguments are plain ints,
# and the one caller of a failure asks again for its reason. Python's own os.setns begins with 3.12.
_setns = ctypes.PyDLL(None).setns
_setns_with_errno = ctypes.PyDLL(None, use_errno=True).setns


class NetnsEntry:
    """Way into other namespaces and back, for the thread that made it; holds one descriptor of that thread's own.

    `with entry.enter(fd): sock = socket.socket(...)`. Not reentrant: leave one namespace before entering the next.
    """

    __slots__ = ("_own", "_target")

    def __init__(self) -> None:
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._target = -1

    def fileno(self) -> int:
        """The own namespace's descriptor."""
        return self._own

    def enter(self, netns_fd: int) -> "NetnsEntry":
        self._target = netns_fd
        return self

    def __enter__(self) -> None:
        """Raises OSError (EPERM: CAP_SYS_ADMIN is missing; EINVAL: no network namespace); nothing has changed then."""
        if _setns(self._target, CLONE_NEWNET) and _setns_with_errno(self._target, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, f"cannot enter the network namespace: {os.strerror(code)}")

    def __exit__(self, *_: object) -> None:
        if _setns(self._own, CLONE_NEWNET) and _setns_with_errno(self._own, CLONE_NEWNET):
            _end_process(ctypes.get_errno())

    def close(self) -> None:
        os.close(self._own)


class OwnNetns:
    """In the place of a NetnsEntry where the one namespace served is the process's own: there is nothing to enter, and
    no capability is needed."""

    __slots__ = ("_own",)

    def __init__(self) -> None:
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._own

    def enter(self, netns_fd: int) -> "OwnNetns":
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None:
        os.close(self._own)


Entry = NetnsEntry | OwnNetns


def _end_process(code: int) -> NoReturn:
    with suppress(Exception):
        sys.stderr.write(f"headgate: ending: cannot return to the own network namespace: {os.strerror(code)}\n")
        sys.stderr.flush()
    os._exit(CANNOT_RETURN_STATUS)


def netns_cookie(sock: socket.socket) -> int:
    """The kernel's number of the namespace that the socket was made in; the same for all its sockets, never reused."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
