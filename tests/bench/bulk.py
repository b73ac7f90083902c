"""One huge body each way through the proxy, from memory: neither side is slower than the proxy, nothing is on disk."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO, Final

from agent.lab.errors import LabError
from agent.lab.node import LabPod

OBJECTS: Final = Path(__file__).parent / "conf" / "bulk.yaml"
HOST: Final = "10.96.0.12"
PORT: Final = 80
TARGET_PORT: Final = 8080
TIMEOUT_S: Final = 60.0
_BLOCK: Final = bytes(256 * 1024)


@contextmanager
def server(pod: LabPod) -> Iterator[None]:
    """Answers GET /N with N bytes, and any POST, once read, with the number of its bytes, in this pod."""
    listener = pod.netns.listen(pod.address4, TARGET_PORT)
    serving = threading.Thread(target=_serve, args=(listener,), name="bench-bulk")
    serving.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # accept returns
        serving.join()
        listener.close()


def upload(pod: LabPod, size: int) -> None:
    """Raises LabError unless every byte arrived."""
    with pod.netns.connect(HOST, PORT, timeout_s=TIMEOUT_S) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: bulk\r\nContent-Length: {size}\r\n\r\n".encode())
        _send(connection, size)
        told = _response(connection).read()
    if told != b"%d" % size:
        raise LabError(f"of {size} bytes sent the server received {told[:200]!r}")


def download(pod: LabPod, size: int) -> None:
    """Raises LabError unless every byte arrived."""
    with pod.netns.connect(HOST, PORT, timeout_s=TIMEOUT_S) as connection:
        connection.sendall(f"GET /{size} HTTP/1.1\r\nHost: bulk\r\n\r\n".encode())
        response = _response(connection)
        received = 0
        while block := response.read(len(_BLOCK)):
            received += len(block)
    if received != size:
        raise LabError(f"of {size} bytes {received} arrived (status {response.status})")


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as received:
            connection.settimeout(TIMEOUT_S)
            try:
                _answer(connection, received)
            except OSError:
                continue  # the client sees the end of the connection, and says what is missing


def _answer(connection: socket.socket, received: BinaryIO) -> None:
    method, path, _ = received.readline().split()
    length = 0
    while line := received.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if method == b"GET":
        size = int(path[1:])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        _send(connection, size)
        return
    read = 0
    while read < length and (block := received.read(min(len(_BLOCK), length - read))):
        read += len(block)
    body = b"%d" % read
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))


def _send(connection: socket.socket, size: int) -> None:
    block = memoryview(_BLOCK)
    while size:
        part = block[: min(size, len(block))]
        connection.sendall(part)
        size -= len(part)


def _response(connection: socket.socket) -> HTTPResponse:
    response = HTTPResponse(connection)
    response.begin()
    return response
