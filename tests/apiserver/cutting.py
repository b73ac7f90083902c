"""What lies between a client and a server, and may give up in the middle of a word."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.apiserver.caller import free_port


class Cutter:
    """Passes bytes on. `cut` resets every connection that there is; new ones are let through."""

    def __init__(self, port: int, to_port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self._to_port = to_port
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._accept, name="cutter")
        self._thread.start()

    def cut(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to_port), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._pairs.append((client, server))
            ends = _Ends(client, server)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_passed, args=(source, sink, ends), name="cutter", daemon=True).start()


class _Ends:
    """Both sockets, closed by whichever direction ends last."""

    def __init__(self, *sockets: socket.socket) -> None:
        self._sockets = sockets
        self._left = 2
        self._lock = threading.Lock()

    def ended(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                for one in self._sockets:
                    one.close()


def _passed(source: socket.socket, sink: socket.socket, ends: _Ends) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
    finally:
        ends.ended()


@contextmanager
def cutting(to_port: int) -> Iterator[Cutter]:
    cutter = Cutter(free_port(), to_port)
    try:
        yield cutter
    finally:
        cutter.close()
