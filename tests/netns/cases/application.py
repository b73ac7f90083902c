"""An application that tells each caller whom it sees: sockets of a pod, served by a thread of the tests."""

import json
import selectors
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from agent.lab.namespaces import Netns
from tests.netns.cases.wire import Endpoint, end_by_reset, listen, own, peer

WHO: Final = b"who?\n"
_HTTP_HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the application's getpeername() and getsockname() said."""

    caller: Endpoint
    called: Endpoint


class Application:
    """Answers GET (keep-alive), and a line `who?` on a connection of no protocol, with the JSON of `Seen`."""

    def __init__(self, where: Netns, address: str, port: int) -> None:
        self.seen: list[Seen] = []
        self._listener = listen(where, address, port, backlog=4096)
        self._listener.settimeout(0)
        self._waking, self._woken = socket.socketpair()
        self._connections: dict[socket.socket, bytes] = {}
        self._thread = threading.Thread(target=self._serve, name=f"application {port}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._waking.close()
        self._thread.join()
        for sock in (self._woken, self._listener):
            sock.close()
        end_by_reset(self._connections)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._listener, self._woken):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif isinstance(key.fileobj, socket.socket):
                        self._hear(selector, key.fileobj)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        accepted, _ = self._listener.accept()
        try:
            self.seen.append(Seen(peer(accepted), own(accepted)))
        except OSError:
            accepted.close()  # it ended in the queue already
            return
        self._connections[accepted] = b""
        selector.register(accepted, selectors.EVENT_READ)

    def _hear(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        try:
            data = sock.recv(65_536)
            heard = self._connections[sock] + data
            if heard == WHO:
                sock.sendall(_text(sock))
                heard = b""
            elif heard.startswith(b"GET ") and heard.endswith(_HTTP_HEAD_END):
                body = _text(sock)
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                heard = b""
        except OSError:
            data = b""
        if data:
            self._connections[sock] = heard
            return
        selector.unregister(sock)
        del self._connections[sock]
        sock.close()


def _text(sock: socket.socket) -> bytes:
    return json.dumps({"caller": peer(sock), "called": own(sock)}).encode() + b"\n"


def ask(sock: socket.socket, *, http: bool) -> Seen:
    """Whom the application at the other end sees; OSError (TimeoutError within wire.TIMEOUT_S) when nothing comes."""
    sock.sendall(b"GET / HTTP/1.1\r\nhost: application\r\n\r\n" if http else WHO)
    return hear(sock)


def hear(sock: socket.socket) -> Seen:
    answer = b""
    while not answer.endswith(b"}\n"):
        part = sock.recv(65_536)
        assert part, f"the connection ended after {answer!r}"
        answer += part
    head, _, body = answer.rpartition(_HTTP_HEAD_END)
    assert not head or head.startswith(b"HTTP/1.1 200 "), head
    answered = json.loads(body)
    return Seen(_endpoint(answered["caller"]), _endpoint(answered["called"]))


def _endpoint(pair: list[object]) -> Endpoint:
    address, port = pair
    assert isinstance(address, str) and isinstance(port, int)
    return address, port
