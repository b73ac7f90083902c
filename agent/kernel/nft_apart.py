"""libnftables' JSON from a process of its own, in the network namespace that the calling thread is in.

libnftables 1.0.6 ends the process that asks it for JSON of what somebody gave a name in no UTF-8 (`nft add rule …
iifname "x\\xff"`; json.c asserts what jansson refuses), and reads freed memory where a table has flags. A pod that may
change its rules would end the agent, or the command that was to tell what the pod does.
"""

import faulthandler
import json
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from agent.kernel import nft
from agent.kernel.refused import KernelRefused
from agent.printable import printable

_LENGTH: Final = struct.Struct("=Q")
_DEV_NULL: Final = "/dev/null"
_REMEDY: Final = "something in it has a name that is no UTF-8, or is new to libnftables: see `nft list ruleset`"


class Helper:
    """One child, made when it is first asked, in the namespace of the thread that asks; made anew when it has died.

    It ends with `close`, or with the process that made it. Not to be used by two threads at once.
    """

    __slots__ = ("_pid", "_socket")

    def __init__(self) -> None:
        self._pid = 0
        self._socket: socket.socket | None = None

    def close(self) -> int:
        """Its wait status; 0 when there was none."""
        if self._socket is None:
            return 0
        self._socket.close()
        self._socket = None
        with suppress(ChildProcessError):  # somebody waits for every child
            return os.waitpid(self._pid, 0)[1]
        return 0

    def list_json(self, kind: str, family: str, table: str, name: str) -> str | None:
        """As agent.kernel.nft.list_json. Raises KernelRefused, also when libnftables gave up on it: the same is then
        refused again; OSError when there can be no child."""
        asked = self._socket or self._fork()
        try:
            _send(asked, json.dumps([kind, family, table, name]).encode())
            answer = json.loads(_receive(asked))
        except (EOFError, ConnectionError):
            how = os.waitstatus_to_exitcode(self.close())
            ended = f"libnftables ended with {signal.Signals(-how).name if how < 0 else how}"
            what = f"nft -j list {kind} {family} {printable(table)} {printable(name)}"
            raise KernelRefused(what, ended, _REMEDY) from None
        if isinstance(answer, list):
            raise KernelRefused(*answer)
        return answer if isinstance(answer, str) else None

    def _fork(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._pid = nft.fork()
            if self._pid == 0:
                _serve(ours, theirs)
            self._socket = socket.socket(fileno=ours.detach())
        return self._socket


_of_thread = threading.local()


@contextmanager
def one_helper() -> Iterator[None]:
    """What `list_json` is asked within, on this thread, one child answers: 2 ms once, not each time."""
    if getattr(_of_thread, "helper", None) is not None:
        yield
        return
    _of_thread.helper = Helper()
    try:
        yield
    finally:
        _of_thread.helper.close()
        _of_thread.helper = None


def list_json(kind: str, family: str, table: str, name: str) -> str | None:
    """As agent.kernel.nft.list_json, apart. Raises as Helper.list_json."""
    with one_helper():
        answer: str | None = _of_thread.helper.list_json(kind, family, table, name)
        return answer


# ── The child ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _serve(ours: socket.socket, theirs: socket.socket) -> NoReturn:
    """Answers until there is nobody to ask. Of the process that it was made of it touches nothing: no exit handlers, no
    buffers, no output; what libnftables complains about goes nowhere."""
    try:
        ours.close()
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to both: who asked decides
        null = os.open(_DEV_NULL, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        # Whatever other threads were at when it was made: a pipe of theirs that stays open here is never at its end
        # there (subprocess waits for its child so), and a namespace would be held.
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        while True:
            _send(theirs, _answer(json.loads(_receive(theirs))))
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


def _answer(asked: list[str]) -> bytes:
    try:
        found: str | list[str] | None = nft.list_json(*asked)
    except KernelRefused as error:
        found = [error.command, error.stderr, error.remedy]
    except (OSError, UnicodeDecodeError) as error:
        found = ["nft -j list", printable(str(error)), _REMEDY]
    return json.dumps(found).encode()


def _send(to: socket.socket, data: bytes) -> None:
    to.sendall(_LENGTH.pack(len(data)) + data)


def _receive(of: socket.socket) -> bytes:
    return _exactly(of, _LENGTH.unpack(_exactly(of, _LENGTH.size))[0])


def _exactly(of: socket.socket, size: int) -> bytes:
    """Raises EOFError."""
    pieces: list[bytes] = []
    while size:
        piece = of.recv(min(size, 1 << 20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
