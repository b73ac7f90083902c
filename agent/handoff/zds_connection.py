"""One proxy on the ZDS socket: one request at a time, each with its answer, in order."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from agent.printable import printable
from proxy.api import zds

_log: Final = logging.getLogger("headgate.zds")


class ConnectionGone(Exception):
    """The proxy is gone, or was sent away. Its successor is told everything anew: do not retry here."""


class Unanswered(Exception):
    """The proxy did not answer in time. Retry: the connection lives, and a late answer is not taken for another's."""


class ZdsConnection:
    """Owns `sock` (non-blocking). `on_closed` is called once, on the event loop, however the connection ends.

    Answers carry no name of their request; they are told apart by order alone. So an answer that is late is waited for
    before the next request goes out, and a proxy that lets two turns pass without it is sent away.
    """

    def __init__(
        self, sock: socket.socket, timeout_s: float, on_closed: Callable[["ZdsConnection"], None] | None = None
    ) -> None:
        self._socket = sock
        self._timeout_s = timeout_s
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[bytes] | None = self._loop.create_future()
        self._owed: asyncio.Future[bytes] | None = None
        self.closed = asyncio.Event()
        self._loop.add_reader(sock.fileno(), self._on_readable)

    async def hello(self) -> None:
        """Waits for the proxy's first message. Raises ConnectionGone, after which the connection is closed."""
        greeting = self._answer
        assert greeting is not None
        data = await self._within_time(greeting)
        if data is None:
            self.close(f"no hello within {self._timeout_s:g} s")
            raise ConnectionGone
        try:
            zds.decode_hello(data)
        except zds.ProtocolError as error:
            self.close(str(error))
            raise ConnectionGone from error

    async def request(self, request: zds.Request, descriptor: int | None = None) -> str:
        """The proxy's error text, empty for done. `descriptor` stays the caller's. Raises ConnectionGone, Unanswered.

        ValueError: the request is too long to be sent to any proxy.
        """
        data = zds.encode_request(request)
        async with self._turn:
            await self._settle()
            answer = self._send(data, () if descriptor is None else (descriptor,))
            self._owed = answer
            received = await self._within_time(answer)
            if received is None:
                raise Unanswered(f"no answer within {self._timeout_s:g} s")
            self._owed = None
            return self._read(received)

    def close(self, reason: str) -> None:
        """Closing twice is harmless; the first reason is the one told."""
        if self.closed.is_set():
            return
        self.closed.set()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionGone())
            self._answer.exception()  # read once: nobody may be waiting, and asyncio would complain of that
        _log.info("proxy disconnected: %s", printable(reason))
        if self._on_closed is not None:
            self._on_closed(self)

    async def _settle(self) -> None:
        """Waits for the answer that an earlier request is still owed: its asker gave up, the proxy may not."""
        if self._owed is None:
            return
        if await self._within_time(self._owed) is None:
            self.close("two requests in succession without an answer")
            raise ConnectionGone
        self._owed = None

    async def _within_time(self, answer: asyncio.Future[bytes]) -> bytes | None:
        """asyncio.wait, because it leaves the future alone when time is up or the asker is cancelled."""
        done, _ = await asyncio.wait((answer,), timeout=self._timeout_s)
        return answer.result() if done else None

    def _send(self, data: bytes, descriptors: tuple[int, ...]) -> asyncio.Future[bytes]:
        if self.closed.is_set():
            raise ConnectionGone
        try:
            zds.send(self._socket, data, descriptors)
        except BlockingIOError:
            # At most one request is ever under way, so a full queue means that nobody reads.
            self.close("it does not read its socket")
            raise ConnectionGone from None
        except OSError as error:
            self.close(f"cannot be written to: {error.strerror}")
            raise ConnectionGone from error
        self._answer = self._loop.create_future()
        return self._answer

    def _read(self, data: bytes) -> str:
        try:
            return zds.decode_ack(data)
        except zds.ProtocolError as error:
            self.close(str(error))
            raise ConnectionGone from error

    def _on_readable(self) -> None:
        try:
            packet = zds.receive(self._socket)
        except BlockingIOError:
            return
        except zds.ProtocolError as error:
            self.close(str(error))
            return
        except OSError as error:
            self.close(f"cannot be read from: {error.strerror}")
            return
        packet.close()
        if packet.descriptors:
            self.close("it sent a descriptor; only the agent sends those")
        elif not packet.data:
            self.close("it closed the connection")
        elif self._answer is None or self._answer.done():
            self.close("it sent a message that nobody asked for")
        else:
            self._answer.set_result(packet.data)
            self._answer = None
