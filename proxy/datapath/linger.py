"""Closing so that the last answer arrives.

Closing a socket with unread data sends RST, and RST makes the peer's kernel throw away what it has not read yet
(RFC 9112 section 9.6): so the write side ends first, and what still comes is read and thrown away for a while.
"""

from typing import Final

from proxy.datapath.client import NO_COURSE, ClientConnection, Course
from proxy.datapath.stream import Stream

LINGER_S: Final = 5.0
"""nginx's lingering_timeout."""


def linger(client: ClientConnection, drained: bool) -> None:
    """Close after what was sent has left. `drained`: the client has nothing more to say, so that close is harmless."""
    stream = client.stream
    if stream.fd < 0 or (drained and not stream.outgoing):
        client.close()
    else:
        client.serve(_Lingering(client))
        stream.resume()


class _Lingering:
    __slots__ = ("_client", "_ended", "_until_s")

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._until_s = 0.0
        self._ended = False
        if not client.stream.outgoing:
            self.on_drained(client.stream)

    def on_drained(self, stream: Stream) -> None:
        if not self._ended:
            self._ended = True
            stream.end()

    def on_data(self, stream: Stream, data: bytes) -> None:
        if not data:
            self._client.close()

    def on_connected(self, stream: Stream) -> None: ...

    def on_connect_failed(self, stream: Stream, reason: str) -> None: ...

    def expire(self, now_s: float) -> None:
        if not self._until_s:
            self._until_s = now_s + LINGER_S
        elif now_s > self._until_s:
            self._client.close(reset=True)

    @property
    def protocol(self) -> str:
        return "" if self._ended else "http"

    def course(self) -> Course:
        return NO_COURSE

    def drain(self, patient: bool) -> None: ...

    def abort(self) -> None:
        self._client.close(reset=True)
