"""A relay between the agent's objects.sock and a proxy: what may stand there some day, and can be slow here."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STEP_BYTES: Final = 2048
STEP_S: Final = 0.05
"""A step's bytes each time: 40 KB/s, when it is slow."""
SYNCED: Final = b'{"type":"synced"}\n'


class Relay:
    """Listens at `path` and passes both ways what comes; a context manager. What the agent says goes at the pace above
    while `slow` is set, but for its greeting. `synced_s` is when the newest connection was told that it knows
    everything."""

    def __init__(self, path: Path, agent: Path) -> None:
        self._agent = agent
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._ending = False
        self.slow = False
        self.synced_s: float | None = None
        self.passed_bytes = 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending = True
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending:
            try:
                proxy, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(proxy)
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sockets.append(agent)
            try:
                agent.connect(str(self._agent))
            except OSError:  # it is away: so is this
                with suppress(OSError):
                    proxy.shutdown(socket.SHUT_RDWR)
                continue
            self.synced_s, self.passed_bytes = None, 0
            self._start(self._pass_up, proxy, agent)
            self._start(self._pass_down, agent, proxy)

    def _pass_up(self, proxy: socket.socket, agent: socket.socket) -> None:
        with suppress(OSError):
            while data := proxy.recv(STEP_BYTES):
                agent.sendall(data)
        _end(proxy, agent)

    def _pass_down(self, agent: socket.socket, proxy: socket.socket) -> None:
        tail = b""
        with suppress(OSError):
            while data := agent.recv(STEP_BYTES):
                if self.slow and self.passed_bytes:
                    time.sleep(STEP_S)  # the pace itself
                tail = tail[-len(SYNCED) :] + data
                if self.synced_s is None and SYNCED in tail:
                    self.synced_s = time.monotonic()
                proxy.sendall(data)
                self.passed_bytes += len(data)
        _end(proxy, agent)


def _end(*sockets: socket.socket) -> None:
    for sock in sockets:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
