"""Network namespaces: opened, identified, entered by threads made for it.

setns(2) moves the calling thread only. So a call is made inside a pod's namespace by a dedicated thread that enters,
calls and returns; the event loop's thread never moves, because whatever it opened next would belong to a pod.

setns(2) is called by ctypes (Python 3.12 has os.setns), with an open descriptor, never a path: what a path names may
change. docs/adr/0001 says why not by pyroute2.
"""

import asyncio
import ctypes
import fcntl
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, ParamSpec, Self, TypeVar

from agent.kernel.own_threads import note_thread
from agent.pods import NetnsId
from agent.printable import printable

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h, ioctl_ns(2)
_OPENED: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: the path comes from a file; a FIFO behind it would block the opener for ever."""
_OWN_NETNS: Final = "/proc/thread-self/ns/net"  # namespaces(7); /proc/self would name the first thread's

STRANDED_EXIT: Final = 70
"""Exit status of a process that ended because a thread could not leave a pod's namespace (sysexits.h: EX_SOFTWARE)."""

THREADS: Final = 4
"""Measured with 250 fresh namespaces: 1, 2, 8 and 16 threads all take 0.4–0.5 s, because adding is bound by the
interpreter and the kernel's own locks; a transaction that deletes waits ~14 ms for a grace period, which threads hide.
Each thread costs an allocator arena: RSS 27 MB with 1, 30 with 2, 41 with 8, 57 with 16."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
# PyDLL and no errno: giving up the GIL around a call of two microseconds costs more than the call, and who is refused
# asks again for the reason: `enter`.
_setns: Final = ctypes.PyDLL(None).setns


class NetnsRefused(Exception):
    """This is not a namespace that the agent may touch. `reason` says why; retrying needs another path or pod."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"network namespace {printable(path)}: {reason}")
        self.path = path
        self.reason = reason


class OpenNetns:
    """One descriptor of a network namespace, and its identity.

    A held descriptor keeps a deleted namespace and its veth alive, so close it as soon as the work is done; it is a
    context manager for that. Made by `open_netns`.
    """

    __slots__ = ("fd", "id")

    def __init__(self, fd: int, identity: NetnsId) -> None:
        self.fd = fd
        self.id = identity

    def close(self) -> None:
        """Gives the descriptor back. Closing twice is harmless."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_netns(path: str | Path, expected: NetnsId | None = None, *, allow_own: bool = False) -> OpenNetns:
    """Opens the namespace at `path` (a named netns, or /proc/PID/ns/net).

    Raises NetnsRefused for what is no network namespace, for the agent's own (the host's: rules there would lead the
    whole node's traffic to one pod's proxy), and, with `expected`, for another namespace than the one decided upon:
    between a decision and this call a pid or a name can pass to somebody else (istio #55139, #61211).
    Raises FileNotFoundError when the path is gone; the pod may be: ask the source again.
    """
    fd = os.open(path, _OPENED)
    try:
        identity = _identify(fd, str(path))
        if expected is not None and identity != expected:
            raise NetnsRefused(
                str(path), f"is {identity} now, {expected} was meant: the pod was replaced; it will be found again"
            )
        if identity == host_netns_id() and not allow_own:
            raise NetnsRefused(
                str(path), "is the agent's own, the node's: a hostNetwork pod cannot be enrolled; label it disabled"
            )
    except BaseException:
        os.close(fd)
        raise
    return OpenNetns(fd, identity)


def _identify(fd: int, path: str) -> NetnsId:
    status = os.fstat(fd)
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError as error:
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "no namespace file"
        raise NetnsRefused(path, f"{what}; give a name under /run/netns or /proc/PID/ns/net") from error
    if kind != CLONE_NEWNET:
        raise NetnsRefused(path, "a namespace of another kind than network; give /proc/PID/ns/net")
    return NetnsId(status.st_dev, status.st_ino)


def _identity(fd: int) -> NetnsId:
    status = os.fstat(fd)
    return NetnsId(status.st_dev, status.st_ino)


def host_netns_id() -> NetnsId:
    """Identity of the namespace that the process runs in: of its first thread, which never moves."""
    status = Path("/proc/self/ns/net").stat()
    return NetnsId(status.st_dev, status.st_ino)


class NetnsThreads:
    """Threads that call functions inside network namespaces.

    `close` waits for calls that have begun. A thread that cannot return ends the process: see `_stranded`.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._home = os.open(_OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="netns", initializer=note_thread)

    async def run(self, netns: OpenNetns, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(*args, **kwargs)` inside `netns`; its result or its exception. OSError when the namespace cannot be
        entered (permission: CAP_SYS_ADMIN).

        The namespace's descriptor is duplicated for the call: a caller that is cancelled closes its own while the
        call still waits for a thread, and the number could by then name another pod's namespace.
        """
        fd = os.dup(netns.fd)
        try:
            future = self._pool.submit(self._inside, fd, lambda: fn(*args, **kwargs))
        except BaseException:
            os.close(fd)
            raise
        future.add_done_callback(lambda _: os.close(fd))
        return await asyncio.wrap_future(future)

    def _inside(self, fd: int, call: Callable[[], T]) -> T:
        enter(fd)
        try:
            return call()
        finally:
            try:
                enter(self._home)
            except OSError as error:
                _stranded(error)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        home, self._home = self._home, -1
        if home >= 0:
            os.close(home)


def enter(fd: int) -> None:
    """Moves the calling thread into the network namespace of descriptor `fd`. OSError says why not."""
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


class Rounds:
    """The way of one thread through many namespaces, each entered for some microseconds, and home again.

    Made on that thread, and used on it only. Holds no namespace but the one that it was made in.
    """

    __slots__ = ("_home",)

    def __init__(self) -> None:
        self._home = os.open(_OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)

    def enter(self, path: str, expected: NetnsId | None = None) -> None:
        """Into the namespace at `path`, from wherever the thread is. With `expected`, into no other.

        Raises OSError when there is none, or NetnsRefused when it is another; the thread has not moved then.
        """
        fd = os.open(path, _OPENED)
        try:
            if expected is not None and _identity(fd) != expected:
                raise NetnsRefused(path, f"is {_identity(fd)} now, {expected} was meant")
            if _setns(fd, CLONE_NEWNET):
                enter(fd)
        finally:
            os.close(fd)

    def home(self) -> None:
        """Back to the thread's own namespace. Ends the process when that is refused."""
        if _setns(self._home, CLONE_NEWNET):
            try:
                enter(self._home)
            except OSError as error:
                _stranded(error)

    def close(self) -> None:
        home, self._home = self._home, -1
        if home >= 0:
            os.close(home)


def leave_for_scratch() -> None:
    """Moves the calling thread into a network namespace of its own, made for it and gone with it.

    Only for a thread that ends afterwards: there is no way back.
    """
    if _libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _stranded(error: OSError) -> NoReturn:
    """Ends the process at once. A thread left inside a pod would apply the next pod's rules, or open the agent's own
    sockets, in the wrong namespace and nobody would notice; ztunnel panics here for the same reason (its inpod
    netns.rs). Nothing is lost: the kernel is the state, the next start reads it back."""
    message = f"headgate agent: a thread cannot leave a pod's network namespace ({error}); the process ends\n"
    os.write(2, message.encode())
    os._exit(STRANDED_EXIT)
