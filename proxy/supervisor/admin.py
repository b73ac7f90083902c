"""What the proxy answers over HTTP: metrics, readiness, and an operator's questions on its admin socket."""

import asyncio
import errno
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from proxy.errors import CannotStart
from proxy.exposition import CONTENT_TYPE
from proxy.supervisor.connections import Connections, wish_of
from proxy.supervisor.cuts import Cuts, encode

_SHUTDOWN_S: Final = 1.0
"""Time that requests in progress get when the proxy ends: longer than a scrape takes."""

_ANSWER_S: Final = 30.0
"""For an answer of any length to be read."""

_Routes = dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]


@dataclass(frozen=True, slots=True)
class Questions:
    """Who answers each path. `cuts` are told to whoever takes over."""

    metrics: Callable[[], Awaitable[bytes]]
    unready: Callable[[], list[str]]
    policy: Callable[[], dict[str, Any]]
    pods: Callable[[], list[dict[str, Any]]]
    drain: Callable[[], Awaitable[None]]
    cuts: Cuts
    connections: Connections


class AdminServers:
    """The proxy's three HTTP servers; `close` ends all and removes the socket file."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._runners: list[web.AppRunner] = []
        self._sites: list[web.SockSite] = []
        self._socket_path: Path | None = None
        self._released = False
        self.metrics_ports: list[int] = []
        self.ready_ports: list[int] = []

    async def start(self, bind: tuple[str, ...], metrics_port: int, ready_port: int, admin_socket: Path) -> None:
        """Raises CannotStart when a port or the admin socket is in use; what was opened is closed by `close`."""
        # First: whoever is told of another proxy must not read of a port.
        runner = await self._runner(
            {
                "/policy": self._policy,
                "/pods": self._pods,
                "/metrics": self._metrics,
                "/cuts": self._cuts,
                "/connections": self._connections,
            },
            {"/drain": self._drain},
        )
        admin = _listen_unix(admin_socket)
        self._socket_path = admin_socket
        await self._listen_on(runner, admin)
        self.metrics_ports = await self._serve_tcp({"/metrics": self._metrics}, bind, metrics_port, "metrics")
        self.ready_ports = await self._serve_tcp({"/healthz/ready": self._ready}, bind, ready_port, "readiness")

    async def release(self) -> None:
        """Another proxy takes the ports and the socket's path; questions under way are still answered."""
        sites, self._sites = self._sites, []
        for site in sites:
            await site.stop()
        self._released = True
        self._remove_socket_file()

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()
        self._sites.clear()
        self._remove_socket_file()

    def _remove_socket_file(self) -> None:
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
            self._socket_path = None

    async def _listen_on(self, runner: web.AppRunner, listener: socket.socket) -> None:
        site = web.SockSite(runner, listener)
        await site.start()
        self._sites.append(site)

    async def _serve_tcp(
        self,
        routes: _Routes,
        bind: tuple[str, ...],
        port: int,
        purpose: str,
    ) -> list[int]:
        runner = await self._runner(routes)
        ports = []
        for address in bind:
            listener = _listen_tcp(address, port, purpose)
            if listener is not None:
                ports.append(int(listener.getsockname()[1]))
                await self._listen_on(runner, listener)
        return ports

    async def _runner(self, routes: _Routes, orders: _Routes | None = None) -> web.AppRunner:
        app = web.Application()
        app.on_response_prepare.append(self._part)
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        for path, handler in (orders or {}).items():
            app.router.add_post(path, handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _part(self, _: web.Request, response: web.StreamResponse) -> None:
        """A scraper's connection must not stay with the old one."""
        if self._released:
            response.force_close()

    async def _drain(self, _: web.Request) -> web.Response:
        await self._questions.drain()
        await self.release()
        return web.Response(text="draining\n")

    async def _cuts(self, request: web.Request) -> web.StreamResponse:
        """Lines, as connections are cut after the hand-over; its end is that of this proxy."""
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        with self._questions.cuts.hear() as told:
            await answer.prepare(request)
            while (cut := await told.get()) is not None:
                await answer.write(encode(cut))
        await answer.write_eof()
        return answer

    async def _connections(self, request: web.Request) -> web.StreamResponse:
        try:
            wish = wish_of(dict(request.query))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            async with asyncio.timeout(_ANSWER_S):
                await answer.prepare(request)
                async with aclosing(self._questions.connections.lines(wish)) as lines:
                    async for some in lines:
                        await answer.write(some)
                await answer.write_eof()
        except TimeoutError:
            # Who does not read holds back everybody else's question.
            if request.transport is not None:
                request.transport.abort()
        return answer

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._questions.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def _ready(self, _: web.Request) -> web.Response:
        missing = self._questions.unready()
        if missing:
            return web.Response(status=503, text="".join(f"not ready: {reason}\n" for reason in missing))
        return web.Response(text="ready\n")

    async def _policy(self, _: web.Request) -> web.Response:
        return _json(self._questions.policy())

    async def _pods(self, _: web.Request) -> web.Response:
        return _json(self._questions.pods())


def _json(value: Any) -> web.Response:
    # Escaped to ASCII: foreign text reaches an operator's terminal from here.
    return web.Response(text=json.dumps(value, indent=2, ensure_ascii=True) + "\n", content_type="application/json")


def _listen_tcp(address: str, port: int, purpose: str) -> socket.socket | None:
    """None where the kernel or namespace has no IPv6."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = None
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen()
    except OSError as error:
        if listener is not None:
            listener.close()
        if family == socket.AF_INET6 and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            return None
        raise CannotStart(
            f"the {purpose} port {port} on {address} cannot be opened: {error.strerror}; "
            f"choose another with --{'ready' if purpose == 'readiness' else 'metrics'}-port"
        ) from error
    return listener


def _listen_unix(path: Path) -> socket.socket:
    """A listening socket at the path, for root and the own user only. A socket file left by a dead process is replaced;
    a living one means that another proxy serves this directory."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise CannotStart(f"{path} exists and is no socket: remove it, or choose another --run-dir")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except PermissionError as error:
                raise CannotStart(f"{path} is another user's: remove it, or choose another --run-dir") from error
            else:
                raise CannotStart(
                    f"another proxy answers on {path}: take its place with --take-over, stop it, or choose another "
                    "--run-dir"
                )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"the admin socket {path} cannot be opened: {error.strerror}; does --run-dir exist?"
        ) from error
    finally:
        os.umask(before)
    return listener
