"""The least that proves as the proxy does: accepts on the steered ports, reports what it saw on objects.sock."""

import asyncio
import functools
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from proxy.api import stream
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT
from tests.netns.kernel.scratch import Scratch

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and netfilter_ipv6/ip6_tables.h with the same number
_SO_NETNS_COOKIE = 71

STEERED: dict[int, stream.Direction] = {OUTBOUND_PORT: "outbound", INBOUND_PORT: "inbound"}


def seen(sock: socket.socket, nonce: str, direction: stream.Direction) -> stream.Proof:
    cookie = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
    if sock.family == socket.AF_INET:
        raw = sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        address, port = ip_address(raw[4:8]), int.from_bytes(raw[2:4], "big")
    else:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
        address, port = ip_address(raw[8:24]), int.from_bytes(raw[2:4], "big")
    return stream.Proof(nonce, cookie, direction, address, port)


class FakeProxy:
    """`alter` changes what is reported; `report` False keeps silent; `answer` is what the client hears."""

    def __init__(self) -> None:
        self.report = True
        self.answer = stream.PROOF_ANSWER
        self.alter: dict[str, object] = {}
        self.lines: asyncio.StreamWriter | None = None
        self.busy: set[asyncio.Task[None]] = set()

    def accepted(self, direction: stream.Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(direction, reader, writer))
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)

    async def _serve(
        self, direction: stream.Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            nonce = stream.match_proof_request(await reader.readexactly(stream.PROOF_BYTES))
            if nonce is not None and self.report and self.lines is not None:
                proof = seen(writer.get_extra_info("socket")._sock, nonce, direction)
                self.lines.write(stream.encode(replace(proof, **self.alter)))  # type: ignore[arg-type]
            writer.write(self.answer)


def _listener(family: socket.AddressFamily, port: int) -> socket.socket:
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("0.0.0.0" if family == socket.AF_INET else "::", port))
    return sock


@asynccontextmanager
async def serving(
    pod: Scratch, ports: dict[int, stream.Direction] | None = None, objects: Path | None = None
) -> AsyncIterator[FakeProxy]:
    proxy = FakeProxy()
    if objects is not None:
        reader, proxy.lines = await asyncio.open_unix_connection(objects)
        await reader.readline()
    servers = []
    for port, direction in (STEERED if ports is None else ports).items():
        for family in (socket.AF_INET, socket.AF_INET6):
            handle = functools.partial(proxy.accepted, direction)
            servers.append(await asyncio.start_server(handle, sock=pod.run(_listener, family, port)))
    try:
        yield proxy
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()
        await asyncio.gather(*proxy.busy)
        if proxy.lines is not None:
            proxy.lines.close()
