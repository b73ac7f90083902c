"""Unix sockets that the agent listens on: made so that only their owner may connect, and only one agent holds them."""

import contextlib
import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UCRED: Final = struct.Struct("iII")  # struct ucred, unix(7): pid, uid, gid
_MODE: Final = 0o600
_BACKLOG: Final = 16


class SocketTaken(Exception):
    """The path cannot be listened on. `reason` says by whom it is held and what to do; retry after that was done."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Listening:
    """A non-blocking listening socket and the file that it is known by."""

    socket: socket.socket
    path: Path
    inode: int

    def close(self) -> None:
        """Closes the socket and removes the file, unless another agent's has taken its place."""
        self.socket.close()
        with contextlib.suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()


def listen(path: Path, kind: socket.SocketKind) -> Listening:
    """Listens at `path`, mode 0600. The file that a dead agent left is replaced.

    Raises SocketTaken when somebody listens there or the path is something else, OSError for the file system's reasons.
    """
    _clear_stale(path, kind)
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Before bind: the file then never exists with another mode (af_unix.c: unix_bind_bsd takes the socket's own).
        os.fchmod(sock.fileno(), _MODE)
        sock.bind(str(path))
        inode = path.lstat().st_ino
        sock.listen(_BACKLOG)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise SocketTaken(path, "another agent took it this instant; run one agent a run directory") from error
        raise
    return Listening(sock, path, inode)


def peer_is_trusted(sock: socket.socket) -> bool:
    """True for root and for our own user. Mode 0600 keeps others out already, unless somebody opened it up."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in (0, os.geteuid())


def _clear_stale(path: Path, kind: socket.SocketKind) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketTaken(path, "is there and is no socket; move it away or choose another --run-dir")
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        refused = probe.connect_ex(str(path))
    if refused == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif refused != errno.ENOENT:
        # Connected, or a full queue, or a listener of another kind: somebody lives there.
        raise SocketTaken(path, "an agent listens there already; stop it or choose another --run-dir")
