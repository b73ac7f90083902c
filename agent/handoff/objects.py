"""The agent's side of objects.sock: tells the proxy of Kubernetes objects, and hears which proofs reached it, what
became of the objects, and whether it serves.

Without a source of objects it says so, and the proxy follows its own directory.
"""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Final

from agent.handoff.listening import Listening, listen, peer_is_trusted
from agent.handoff.object_lines import ObjectLines, ReaderTooSlow
from agent.handoff.reports import Reports
from agent.handoff.serving import Serving
from agent.handoff.verdicts import Verdicts
from agent.printable import printable
from proxy.api import stream

_log: Final = logging.getLogger("headgate.objects")


class ObjectsServer:
    """Serves objects.sock on the running event loop. What any connected proxy reports counts."""

    def __init__(self, objects: ObjectLines | None = None) -> None:
        self._objects = objects
        self._listening: Listening | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self.reports = Reports()
        self.verdicts = Verdicts()
        self.serving = Serving()

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
        Begin to wait before connecting."""
        return await self.reports.wait_for(nonce, timeout_s)

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
        telling: asyncio.Task[None] | None = None
        try:
            if not peer_is_trusted(writer.get_extra_info("socket")):
                _log.warning("a process of another user connected to objects.sock; sent away")
                return
            self._writers.add(writer)
            self.serving.came(writer)
            telling = asyncio.create_task(self._tell(writer))
            while line := await reader.readline():
                self._heard(writer, line)
        except (OSError, ValueError) as error:
            # ValueError: a line longer than the limit, or one that cannot be understood. What follows it is not read.
            _log.warning("objects.sock: proxy sent away: %s", printable(str(error)))
        finally:
            self._writers.discard(writer)
            self.serving.gone(writer)
            if telling is not None:
                telling.cancel()
            writer.close()

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        """Hello, then objects as fast as the proxy reads them, until cancelled."""
        if self._objects is None:
            writer.write(stream.encode(stream.Hello("none")))
            return
        writer.write(stream.encode(stream.Hello("stream")))
        feed = self._objects.subscribe()
        try:
            while True:
                writer.write(await feed.next_chunk())
                await writer.drain()
        except ReaderTooSlow as error:
            _log.warning("objects.sock: proxy sent away: %s", error)
        except OSError:
            pass  # it has gone; who reads from it notices too
        finally:
            self._objects.unsubscribe(feed)
            # Not closed: what is buffered for a proxy that does not read would keep the connection for ever.
            writer.transport.abort()

    def _heard(self, proxy: asyncio.StreamWriter, line: bytes) -> None:
        message = stream.decode(line)
        if isinstance(message, stream.Proof):
            self.reports.heard(message)
        elif isinstance(message, stream.Verdict):
            self.verdicts.heard(message)
        elif isinstance(message, stream.Serving):
            self.serving.heard(proxy, message.serves)
