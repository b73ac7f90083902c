"""The agent's side of objects.sock: greets the proxy, and hears which proof connections reached it.

In this part of the product the stream carries no policy objects; the proxy reads those from its directory.
"""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Final

from agent.handoff.listening import Listening, listen, peer_is_trusted
from agent.printable import printable
from proxy.api import stream

_log: Final = logging.getLogger("headgate.objects")


class ObjectsServer:
    """Serves objects.sock on the running event loop. What any connected proxy reports counts."""

    def __init__(self) -> None:
        self._listening: Listening | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._awaited: dict[str, asyncio.Future[stream.Proof]] = {}

    @property
    def connected(self) -> bool:
        """A proxy is connected that can report proofs. False with a foreign proxy, which does not know this socket."""
        return bool(self._writers)

    async def start(self, path: str | Path) -> None:
        """Listens at `path`. Raises SocketTaken when another agent does, OSError when the directory cannot be used."""
        self._listening = listen(Path(path), socket.SOCK_STREAM)
        self._server = await asyncio.start_unix_server(
            self._accepted, sock=self._listening.socket, limit=stream.MAX_LINE_BYTES
        )

    async def wait_for(self, nonce: str, timeout_s: float) -> stream.Proof | None:
        """The report of the proof connection that carried `nonce`; None when none came within `timeout_s` seconds.

        Begin to wait before connecting: a report that nobody waits for is dropped, so that strangers who find the
        proof port cannot fill the agent's memory.
        """
        future = self._awaited.setdefault(nonce, asyncio.get_running_loop().create_future())
        try:
            done, _ = await asyncio.wait((future,), timeout=timeout_s)
            return future.result() if done else None
        finally:
            self._awaited.pop(nonce, None)

    async def close(self) -> None:
        """Stops listening and closes every connection."""
        server, self._server = self._server, None
        listening, self._listening = self._listening, None
        if server is None or listening is None:
            return
        server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await server.wait_closed()
        listening.close()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Starts the handler itself: the stream module would neither name its task nor wait for it on close."""
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not peer_is_trusted(writer.get_extra_info("socket")):
                _log.warning("a process of another user connected to objects.sock; sent away")
                return
            self._writers.add(writer)
            writer.write(stream.encode(stream.Hello("none")))
            while line := await reader.readline():
                self._heard(line)
        except (OSError, ValueError) as error:
            # ValueError: a line longer than the limit, or one that cannot be understood. What follows it is not read.
            _log.warning("objects.sock: proxy sent away: %s", printable(str(error)))
        finally:
            self._writers.discard(writer)
            writer.close()

    def _heard(self, line: bytes) -> None:
        message = stream.decode(line)
        if not isinstance(message, stream.Proof):
            return
        future = self._awaited.get(message.nonce)
        if future is not None and not future.done():
            future.set_result(message)
