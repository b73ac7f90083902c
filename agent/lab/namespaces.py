"""Network namespaces of a lab: made, entered and removed without a command and without touching the caller's own.

`ip netns add` is not used: on a machine without namespaces it first bind-mounts /run/netns over itself and leaves that
mount behind for good; and `ip netns exec` remounts /sys, which hides the cgroup tree from what runs inside. A name made
here is listed by `ip netns` all the same (a bind mount of the namespace below /run/netns, ip-netns(8)).
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from agent.lab.errors import LabError

NETNS_DIRECTORY: Final = Path("/run/netns")

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_MS_BIND: Final = 4096  # linux/mount.h
_MNT_DETACH: Final = 2  # umount2(2)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)  # Python 3.11 has neither os.setns nor os.unshare (3.12 has)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Netns:
    """A named network namespace and ways to act in it. Nothing is held open between calls."""

    name: str

    @property
    def path(self) -> Path:
        return NETNS_DIRECTORY / self.name

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the function on a thread inside this namespace and returns or raises what it did. The sockets that it
        makes belong to this namespace for ever and are used from any thread."""
        return _on_thread(lambda: _enter(self.path), lambda: function(*args, **kwargs))

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a command inside; options are those of subprocess.Popen."""
        start: Callable[..., subprocess.Popen[Any]] = subprocess.Popen
        return self.call(start, list(command), **options)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = 30,
        check: bool = True,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside to its end. Raises LabError with its standard error when it fails and `check` is set,
        TimeoutExpired after `timeout_s`."""
        done = self.call(
            subprocess.run,
            list(command),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            input=stdin,
            env=None if environment is None else dict(environment),
        )
        if check and done.returncode:
            reason = done.stderr.strip() or done.stdout.strip()
            raise LabError(f"{' '.join(command)} in {self.name}: exit {done.returncode}: {reason}")
        return done

    def open_socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this namespace; the caller closes it."""
        return self.call(socket.socket, family, kind)

    def connect(self, address: object, port: int, *, timeout_s: float = 5) -> socket.socket:
        """A TCP connection opened from here; the caller closes it. OSError as connect(2)."""
        return self.call(socket.create_connection, (str(address), port), timeout_s)

    def listen(self, address: object, port: int, *, backlog: int = 128) -> socket.socket:
        """A listening TCP socket here (IPv6 ones take IPv6 only); the caller closes it."""
        family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
        return self.call(socket.create_server, (str(address), port), family=family, backlog=backlog)

    def write_sysctl(self, key: str, value: str) -> None:
        """Sets /proc/sys/KEY as this namespace sees it: /proc/sys/net is the reader's own namespace, proc(5)."""
        self.call(Path("/proc/sys", key).write_text, value)

    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode) of the namespace. FileNotFoundError when it is gone."""
        status = self.path.stat()
        return status.st_dev, status.st_ino


def create(name: str) -> Netns:
    """Makes a namespace of this name. LabError when the name is taken or the machine refuses."""
    netns = Netns(name)
    NETNS_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        os.close(os.open(netns.path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
    except FileExistsError as error:
        raise LabError(f"network namespace {name} exists already; remove it (ip netns delete {name})") from error
    try:
        _on_thread(_unshare, lambda: _bind(Path("/proc/thread-self/ns/net"), netns.path))
    except OSError as error:
        netns.path.unlink()
        raise LabError(f"network namespace {name}: {error}; a lab needs root (CAP_SYS_ADMIN)") from error
    return netns


def delete(netns: Netns) -> None:
    """Removes the name; the namespace itself goes with its last process. Quiet when it is gone already."""
    _LIBC.umount2(os.fsencode(netns.path), _MNT_DETACH)
    with suppress(FileNotFoundError):
        netns.path.unlink()


def with_prefix(prefix: str) -> list[Netns]:
    """The named namespaces whose name starts so, in order of name."""
    if not NETNS_DIRECTORY.is_dir():
        return []
    return [Netns(path.name) for path in sorted(NETNS_DIRECTORY.iterdir()) if path.name.startswith(prefix)]


def _on_thread(enter: Callable[[], None], function: Callable[[], R]) -> R:
    """A thread of its own, which ends inside the namespace: none has to find its way back."""
    outcome: list[tuple[R, None] | tuple[None, BaseException]] = []

    def body() -> None:
        try:
            enter()
            outcome.append((function(), None))
        except BaseException as error:  # handed to the caller's thread, whatever it is
            outcome.append((None, error))

    thread = threading.Thread(target=body, name="hg-lab-netns")
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()  # an interrupt: what the thread makes must be there before the caller removes what was made
        raise
    value, raised = outcome[0]
    if raised is not None:
        try:
            raise raised
        finally:
            outcome.clear()  # else exception, frame and list hold each other, and with them the caller's sockets
            del raised
    return value  # type: ignore[return-value]  # the pair is (R, None) here


def _enter(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LabError(f"network namespace {path} is gone: the lab is down") from error
    try:
        _checked(_LIBC.setns(descriptor, _CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(descriptor)


def _unshare() -> None:
    _checked(_LIBC.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")


def _bind(source: Path, target: Path) -> None:
    _checked(_LIBC.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None), f"mount {target}")


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
