"""Both ends of a connection as a test plays them: blocking, bounded by a time-out, byte for byte."""

import select
import socket
from contextlib import suppress

PATIENCE_S = 5.0
"""Bound of every wait. Nothing that is tested takes a tenth of it on an idle machine."""


class Wire:
    """One end of a TCP connection. What the other end sends is read exactly as far as asked for."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._ahead = b""

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer if the peer ends before."""
        while len(self._ahead) < size and (data := self.sock.recv(1 << 16)):
            self._ahead += data
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken

    def until(self, marker: bytes) -> bytes:
        """Through the first `marker`; EOFError, with what came, if the peer ends before."""
        while marker not in self._ahead:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError(f"ended before {marker!r}: {self._ahead!r}")
            self._ahead += data
        end = self._ahead.index(marker) + len(marker)
        taken, self._ahead = self._ahead[:end], self._ahead[end:]
        return taken

    def head(self) -> bytes:
        """Through the empty line."""
        return self.until(b"\r\n\r\n")

    def rest(self) -> bytes:
        """Everything until the peer's FIN; ConnectionResetError for a reset."""
        while data := self.sock.recv(1 << 16):
            self._ahead += data
        taken, self._ahead = self._ahead, b""
        return taken

    def drain(self, size: int) -> int:
        """Read `size` bytes and forget them; returns how many came before the end."""
        left = size - len(self._ahead)
        self._ahead = b""
        buffer = bytearray(1 << 18)
        while left and (count := self.sock.recv_into(buffer, min(left, len(buffer)))):
            left -= count
        return size - left

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of a response with Content-Length, or with none at all (204, 304)."""
        head = self.head()
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return int(head.split(b" ")[1]), head, self.read(length)

    def refused(self) -> tuple[int, str]:
        """Status and flag of an answer that the proxy gave itself, after which it must have ended the connection."""
        status, head, _ = self.answer()
        assert b"\r\nconnection: close\r\n" in head, head
        assert self.rest() == b"", "more than one answer"
        return status, flag_of(head)

    def is_reset(self) -> bool:
        """Whether the next that comes is a reset."""
        try:
            self.sock.recv(1)
        except ConnectionResetError:
            return True
        return False

    def is_silent(self) -> bool:
        """Whether nothing has come so far, not even an end. For use after something that must have come later."""
        return not self._ahead and not select.select([self.sock], [], [], 0)[0]

    def end(self) -> None:
        """Half-close: nothing more comes from this side."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def fill(self, chunk: bytes, limit_bytes: int, stalled_s: float = 0.5) -> int:
        """Send until nothing has been taken for `stalled_s`, or `limit_bytes` are gone; returns how many went."""
        sent = 0
        self.sock.settimeout(stalled_s)
        with suppress(TimeoutError):
            while sent < limit_bytes:
                sent += self.sock.send(memoryview(chunk)[sent % len(chunk) :])
        self.sock.settimeout(PATIENCE_S)
        return sent


class Server:
    """A listening socket of a pod, whose connections the test serves by hand."""

    def __init__(self, listener: socket.socket) -> None:
        listener.settimeout(PATIENCE_S)
        self.listener = listener
        self.host, self.port = listener.getsockname()[:2]
        self.accepted: list[Wire] = []

    def accept(self) -> Wire:
        sock, _ = self.listener.accept()
        wire = Wire(sock)
        self.accepted.append(wire)
        return wire

    def has_caller(self) -> bool:
        """Whether a connection waits to be accepted."""
        return bool(select.select([self.listener], [], [], 0)[0])

    def interrupt(self) -> None:
        """Wakes whoever is in `accept`, or reads from one of its connections, on another thread."""
        for sock in (self.listener, *(wire.sock for wire in self.accepted)):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for wire in self.accepted:
            wire.close()
        self.listener.close()


def flag_of(head: bytes) -> str:
    """Envoy's response flag from the header by which the proxy explains itself."""
    return head.partition(b"\r\nheadgate-error: ")[2].split(b" ")[0].decode()


def ok(body: bytes = b"ok", *fields: bytes) -> bytes:
    """A response as most servers send it."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(path: bytes = b"/", *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: web", *fields]) + b"\r\n\r\n"


def post(body: bytes, *fields: bytes, path: bytes = b"/") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: web", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
