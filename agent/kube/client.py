"""Requests to one API server: as JSON, or as what arrives bit by bit (lists, watches).

One connection pool. A server that has gone without a word is noticed by the kernel (keep-alives, TCP_USER_TIMEOUT), for
a watch may be silent for a minute and alive.
"""

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from agent.kube.access import Access
from agent.kube.credentials import Identities, Identity
from agent.kube.errors import ApiRefused, CannotReach
from agent.printable import printable

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 60.0
"""apiserver --request-timeout: what is no watch is answered or refused by then."""
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
_UNANSWERED_MS: Final = 30_000
"""client-go closes an HTTP/2 connection after 30 s without a sign and 15 s without an answer to a ping
(apimachinery/pkg/util/net/http.go); tcp(7): TCP_USER_TIMEOUT for what was sent and not acknowledged."""
_ERROR_LIMIT: Final = 64 << 10
_USER_AGENT: Final = "headgate"


class ApiClient:
    """Close it. Methods raise CannotReach (try again), ApiRefused (the server's word) and InvalidAccess."""

    def __init__(self, access: Access, now_s: Callable[[], float], time_s: Callable[[], float]) -> None:
        self.access = access
        self._identities = Identities(access, now_s, time_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """A JSON document whole."""
        async with self.streaming(path, parameters, ANSWER_TIMEOUT_S) as content:
            return _json(await content.read())

    @asynccontextmanager
    async def streaming(
        self, path: str, parameters: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The answer's body while it comes. `timeout_s`: for all of it; None: as long as it takes."""
        identity = await self._identities.current()
        headers = {"Accept": "application/json", "User-Agent": _USER_AGENT}
        if identity.header:
            headers["Authorization"] = identity.header
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        session = self._opened()
        try:
            async with session.get(
                self.access.server + path,
                params=parameters,
                headers=headers,
                timeout=timeout,
                ssl=True if identity.tls is None else identity.tls,
                server_hostname=self.access.server_name or None,
                allow_redirects=False,  # another server would get the token
            ) as answer:
                if answer.status != 200:
                    raise await self._refusal(answer, identity)
                yield answer.content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CannotReach(f"{self.access.server}: {printable(str(error) or type(error).__name__, 300)}") from error

    async def _refusal(self, answer: aiohttp.ClientResponse, identity: Identity) -> ApiRefused:
        if answer.status == 401:
            self._identities.refused(identity)
        told = await answer.content.read(_ERROR_LIMIT)
        return refusal(answer.status, told, answer.headers.get("Retry-After", ""))

    def _opened(self) -> aiohttp.ClientSession:
        """Made on first use: it belongs to the running loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, socket_factory=_socket)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False, read_bufsize=1 << 16)
        return self._session


def refusal(status: int, told: bytes, retry_after: str = "") -> ApiRefused:
    """Of an answer that is no 200: metav1.Status, or whatever a proxy before the server says."""
    wanted_s = float(retry_after) if retry_after.isdecimal() else None
    try:
        said = json.loads(told)
        reason, message = str(said.get("reason") or ""), str(said.get("message") or "")
    except (ValueError, AttributeError, RecursionError):
        reason, message = "", told.decode("utf-8", "replace")
    return ApiRefused(status, printable(reason, 80), printable(" ".join(message.split()), 300), wanted_s)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotReach(f"an answer that is no JSON: {printable(str(error), 100)}") from error


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
    return made
