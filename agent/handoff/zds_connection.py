"""One proxy on the ZDS socket: requests, and their answers in the same order."""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from agent.printable import printable
from proxy.api import zds

_log: Final = logging.getLogger("headgate.zds")


WINDOW: Final = 2
"""Requests under way to a proxy that takes several, as ours says in its hello: it never waits for this process's next
turn, which comes late while rules are installed. 150 pods replaced, 1, 2, 4 at once: announcement to answer 35, 25,
95 ms at the 99th percentile, for what waits in the proxy's queue counts; until all are installed 1.4 to 1.7, 1.2 to
1.5, 1.1 to 1.5 s."""


class ConnectionGone(Exception):
    """The proxy is gone, or was sent away. Its successor is told everything anew: do not retry here."""


class Unanswered(Exception):
    """The proxy did not answer in time. Retry: the connection lives, and a late answer is not taken for another's."""


class ZdsConnection:
    """Owns `sock` (non-blocking). `on_closed` is called once, on the event loop, however the connection ends;
    `on_answer` with each request that was answered in time, and the seconds that it took on the wire.

    Answers carry no name of their request; they are told apart by order alone. One request is under way at a time, as
    istio-cni does it, unless the proxy's hello says that it takes more. An answer that is late is waited for before the
    next request goes out, and a proxy that lets two turns pass without it is sent away.
    """

    def __init__(
        self,
        sock: socket.socket,
        timeout_s: float,
        on_closed: Callable[["ZdsConnection"], None] | None = None,
        on_answer: Callable[[zds.Request, float], None] | None = None,
    ) -> None:
        self._socket = sock
        self._on_answer = on_answer
        self._timeout_s = timeout_s
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Semaphore()
        self._greeting: asyncio.Future[bytes] = self._loop.create_future()
        self._answers: deque[asyncio.Future[bytes]] = deque((self._greeting,))
        self._owed: asyncio.Future[bytes] | None = None
        self.closed = asyncio.Event()
        self._loop.add_reader(sock.fileno(), self._on_readable)

    async def hello(self) -> zds.Hello:
        """The proxy's first message. Raises ConnectionGone, after which the connection is closed."""
        data = await self._within_time(self._greeting)
        if data is None:
            self.close(f"no hello within {self._timeout_s:g} s")
            raise ConnectionGone
        try:
            hello = zds.decode_hello(data)
        except zds.ProtocolError as error:
            self.close(str(error))
            raise ConnectionGone from error
        for _ in range(min(hello.at_once, WINDOW) - 1):
            self._turn.release()
        return hello

    async def request(self, request: zds.Request, descriptor: int | None = None) -> str:
        """The proxy's error text, empty for done. `descriptor` stays the caller's. Raises ConnectionGone, Unanswered.

        ValueError: the request is too long to be sent to any proxy.
        """
        data = zds.encode_request(request)
        async with self._turn:
            await self._settle()
            sent_s = self._loop.time()
            answer = self._send(data, () if descriptor is None else (descriptor,))
            try:
                received = await self._within_time(answer)
            finally:
                if not answer.done():
                    self._owed = answer
            if received is None:
                raise Unanswered(f"no answer within {self._timeout_s:g} s")
            if self._on_answer is not None:
                self._on_answer(request, self._loop.time() - sent_s)
            return self._read(received)

    def close(self, reason: str) -> None:
        """Closing twice is harmless; the first reason is the one told."""
        if self.closed.is_set():
            return
        self.closed.set()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(ConnectionGone())
                answer.exception()  # read once: nobody may be waiting, and asyncio would complain of that
        _log.info("proxy disconnected: %s", printable(reason))
        if self._on_closed is not None:
            self._on_closed(self)

    async def _settle(self) -> None:
        """Waits for the answer that an earlier request is still owed: its asker gave up, the proxy may not."""
        owed = self._owed
        if owed is None or owed.done():
            return
        if await self._within_time(owed) is None:
            self.close("two requests in succession without an answer")
            raise ConnectionGone

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
            # A few requests at most are ever under way, so a full queue means that nobody reads.
            self.close("it does not read its socket")
            raise ConnectionGone from None
        except OSError as error:
            self.close(f"cannot be written to: {error.strerror}")
            raise ConnectionGone from error
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answers.append(answer)
        return answer

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
        elif not self._answers:
            self.close("it sent a message that nobody asked for")
        else:
            self._answers.popleft().set_result(packet.data)
