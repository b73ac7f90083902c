"""cni.sock: the CNI plugin asks for a pod that is about to start, and waits until it is steered."""

import asyncio
import errno
import logging
import os
import socket
from typing import Final, Protocol

from agent.printable import printable
from agent.sources.cni_request import Attachment, CniCode, CniCommand, CniRequest, NotAttached, answer, read_request

_log: Final = logging.getLogger("headgate.cni")

ANSWER_S: Final = 5.0
"""Istio's plugin waits as long for its agent (istio #51739); ours a little longer, to hear why it was in vain."""
_REQUEST_BYTES: Final = 1 << 20
_READ_S: Final = 2.0
"""The plugin writes all it has at once."""


class Attachments(Protocol):
    """What is done. Raises NotAttached."""

    async def add(self, attachment: Attachment, /) -> None:
        """Returns when the pod is steered, or is none of ours."""

    async def remove(self, attachment: Attachment, /) -> None: ...

    async def check(self, attachment: Attachment, /) -> None: ...

    async def status(self) -> None: ...

    async def keep_only(self, container_ids: frozenset[str], /) -> None: ...


class CniServer:
    """Answers on the running loop. `listener` is the caller's to close."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments
        self._server: asyncio.Server | None = None
        self._asked: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._accepted, sock=listener)

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for task in self._asked:
                task.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)
            await server.wait_closed()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_S):
                data = await _whole(reader)
            await self._answer(data, writer)
        except (TimeoutError, OSError):
            pass  # the plugin has gone, or was stopped: it tells the runtime itself
        finally:
            writer.close()

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = read_request(data)
        except NotAttached as unreadable:
            writer.write(answer(unreadable))
            return
        refused = await self._refusal(request)
        writer.write(answer(refused, request.cni_version))
        try:
            await writer.drain()
        except OSError:
            if request.command is CniCommand.ADD and request.attachment is not None and refused is None:
                # The runtime never heard that it succeeded: it will not take this sandbox down by DEL.
                _log.warning("CNI: container %s is steered, and its runtime has gone", request.attachment.container_id)
                await self._attachments.remove(request.attachment)

    async def _refusal(self, request: CniRequest) -> NotAttached | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._done(request.command, request.attachment, request.valid)
        except NotAttached as reason:
            _log.warning("CNI: %s", printable(str(reason), 400))
            return reason
        except TimeoutError:
            return NotAttached(CniCode.TRY_AGAIN_LATER, f"not done within {ANSWER_S:g} s")
        except Exception as fault:  # of ours: who asks is told, not left to wait
            _log.exception("CNI: %s failed", request.command.value)
            return NotAttached(CniCode.CANNOT_ENROL, f"a fault of the agent: {printable(repr(fault), 200)}")
        return None

    async def _done(self, command: CniCommand, attachment: Attachment | None, valid: frozenset[str]) -> None:
        if attachment is None:
            await (self._attachments.keep_only(valid) if command is CniCommand.GC else self._attachments.status())
        elif command is CniCommand.ADD:
            await self._attachments.add(attachment)
        elif command is CniCommand.DEL:
            await self._attachments.remove(attachment)
        else:
            await self._attachments.check(attachment)


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """Up to its end. Raises OSError when it is longer than any request."""
    data = b""
    while more := await reader.read(_REQUEST_BYTES):
        data += more
        if len(data) > _REQUEST_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    return data
