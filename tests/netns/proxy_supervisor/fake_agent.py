"""The agent's side of the two sockets, driven step by step: what a real agent never says can be said here."""

import asyncio
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from proxy.api import zds
from proxy.supervisor.waiting import readable

ANSWER_S = 6.0


class FakeAgent:
    """Listens on both sockets of a run directory; `connect` waits for the proxy's hello."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._zds = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._zds.bind(str(run_dir / "zds.sock"))
        self._zds.listen()
        self._proxy: socket.socket | None = None
        self._objects: asyncio.Server | None = None
        self.proofs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def connect(self) -> None:
        self.disconnect()
        async with asyncio.timeout(ANSWER_S):
            await readable(self._zds)
            self._proxy, _ = self._zds.accept()
            self._proxy.setblocking(False)
            assert zds.decode_hello(await self.receive()).at_once == zds.AT_ONCE

    async def listen_for_proofs(self) -> None:
        self._objects = await asyncio.start_unix_server(self._objects_peer, str(self._run_dir / "objects.sock"))

    async def _objects_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"type":"hello","objects":"none"}\n')
        while line := await reader.readline():
            if (message := json.loads(line))["type"] == "proof":
                self.proofs.put_nowait(message)
        writer.close()

    async def ask(self, request: zds.Request, *descriptors: int) -> str:
        """The proxy's refusal, "" when it acknowledged."""
        self.say(zds.encode_request(request), *descriptors)
        return zds.decode_ack(await self.receive())

    async def add(self, uid: str, netns: Path, name: str = "") -> str:
        descriptor = os.open(netns, os.O_RDONLY)
        try:
            return await self.ask(zds.AddWorkload(uid, zds.WorkloadInfo(name or uid, "shop", "default")), descriptor)
        finally:
            os.close(descriptor)

    def say(self, data: bytes, *descriptors: int) -> None:
        assert self._proxy is not None
        zds.send(self._proxy, data, descriptors)

    async def receive(self) -> bytes:
        """One packet; b"" when the proxy has closed."""
        assert self._proxy is not None
        async with asyncio.timeout(ANSWER_S):
            await readable(self._proxy)
        with suppress(ConnectionResetError):
            return zds.receive(self._proxy).data
        return b""

    def disconnect(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None

    async def close_sockets(self) -> None:
        """End, and make room for another agent. Idempotent."""
        self.disconnect()
        if self._zds.fileno() >= 0:
            self._zds.close()
            (self._run_dir / "zds.sock").unlink()
        if self._objects is not None:
            self._objects.close()
            await self._objects.wait_closed()
            self._objects = None
