"""A server that answers every request by itself, for tests that look at many of them."""

import threading
from types import TracebackType
from typing import Self

from tests.netns.proxy.wire import Server, Wire, ok


class Answering:
    """Answers `body` to each request of each connection, on threads, until the block ends."""

    def __init__(self, server: Server, body: bytes) -> None:
        self.server = server
        self._answer = ok(body)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(threading.Thread(target=self._accept))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.interrupt()
        for thread in self._threads:
            thread.join()

    def _start(self, thread: threading.Thread) -> None:
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        try:
            while True:
                self._start(threading.Thread(target=self._serve, args=[self.server.accept()]))
        except OSError:  # interrupted
            return

    def _serve(self, wire: Wire) -> None:
        try:
            while True:
                wire.head()
                wire.send(self._answer)
        except (OSError, EOFError):
            return
