"""A proxy's side of ZDS, played with a real socket: what it was told, and what it answers."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from proxy.api import zds


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Proxy:
    """A blocking SEQPACKET client driven from asyncio; descriptors received are kept until `close`."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.socket.connect(str(path))
        self.told: list[zds.Request] = []
        self.descriptors: dict[str, int] = {}

    async def hello(self, began_ns: int = 0) -> None:
        hello = zds.encode_hello(zds.Hello(began_ns=began_ns))
        await asyncio.get_running_loop().sock_sendall(self.socket, hello)

    async def next(self) -> zds.Request:
        """The next request, checked as a proxy checks it. EOFError when the agent closed."""
        packet = await asyncio.wait_for(self._receive(), 5)
        if not packet.data:
            raise EOFError
        request = zds.decode_request(packet.data)
        descriptor = zds.take_descriptor(request, packet.descriptors)
        if isinstance(request, zds.AddWorkload) and descriptor is not None:
            if request.uid in self.descriptors:
                os.close(self.descriptors[request.uid])
            self.descriptors[request.uid] = descriptor
        self.told.append(request)
        return request

    async def answer(self, error: str = "") -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, zds.encode_ack(error))

    async def serve(self, error: str = "") -> None:
        """Answers everything alike until the agent closes."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                await self.next()
                await self.answer(error)

    async def snapshot(self, began_ns: int = 0) -> list[zds.Request]:
        """Says hello and takes the snapshot to its end."""
        await self.hello(began_ns)
        while True:
            request = await self.next()
            await self.answer()
            if isinstance(request, zds.SnapshotSent):
                return self.told

    async def closed_by_agent(self) -> bool:
        """True once the agent has closed the connection; False when a message comes instead."""
        try:
            return not (await asyncio.wait_for(self._receive(), 5)).data
        except ConnectionError:
            return True

    def close(self) -> None:
        zds.close_all(tuple(self.descriptors.values()))
        self.descriptors.clear()
        self.socket.close()

    async def _receive(self) -> zds.Packet:
        while True:
            with contextlib.suppress(BlockingIOError):
                return zds.receive(self.socket)
            readable = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(self.socket.fileno(), _set, readable)
            try:
                await readable
            finally:
                asyncio.get_running_loop().remove_reader(self.socket.fileno())


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@contextlib.contextmanager
def descriptor() -> Iterator[int]:
    """Some descriptor to hand over; the framing does not care which kind."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
