"""Requests to one API server: as JSON, or as what arrives bit by bit (lists, watches).

One connection pool. A server that has gone without a word is noticed by the kernel (keep-alives, TCP_USER_TIMEOUT), for
a watch may be silent for a minute and alive.
"""

import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
_UNANSWERED_MS: Final = 30_000
"""client-go closes an HTTP/2 connection after 30 s without a sign and 15 s without an answer to a ping
(apimachinery/pkg/util/net/http.go); tcp(7): TCP_USER_TIMEOUT for what was sent and not acknowledged."""
_TCP_OPTIONS: Final = {
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": _UNANSWERED_MS,
}
_ERROR_LIMIT: Final = 64 << 10
_USER_AGENT: Final = "headgate"
"""Also who has set a field, in metadata.managedFields."""
WRITE_TIMEOUT_S: Final = 15.0
"""Above the 10 s of an admission webhook's default, which may stand in between (admissionregistration.k8s.io/v1:
timeoutSeconds)."""
JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
"""RFC 7386; apimachinery/pkg/types/patch.go."""
JSON_PATCH: Final = "application/json-patch+json"
"""RFC 6902."""
_DONE: Final = (200, 201, 202)


_Body = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class ApiClient:
    """Close it. Methods raise CannotReach (try again), ApiRefused (the server's word) and InvalidAccess.

    A write that CannotReach may have been done: who writes must be able to say the same twice.
    """

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

    async def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """`path`: of the collection. The object as it was made; ApiRefused 409 where it is there already."""
        return await self._write("POST", path, body, JSON)

    async def update(self, path: str, body: Mapping[str, Any]) -> Any:
        """The whole object; ApiRefused 409 where `metadata.resourceVersion` is not the present one any more."""
        return await self._write("PUT", path, body, JSON)

    async def patch(self, path: str, change: _Body, content_type: str = MERGE_PATCH) -> Any:
        """A merge patch: null takes a key away. `metadata.uid` and `metadata.resourceVersion` in it are conditions,
        ApiRefused 409 where another one is there. Or the operations of a JSON_PATCH. The object as it is then."""
        return await self._write("PATCH", path, change, content_type)

    async def delete(self, path: str, options: Mapping[str, Any] | None = None) -> Any:
        """`options`: metav1.DeleteOptions; of its preconditions one that does not hold is ApiRefused 409."""
        return await self._write("DELETE", path, options or {}, JSON)

    async def _write(self, method: str, path: str, body: _Body, content_type: str) -> Any:
        data = json.dumps(body, separators=(",", ":")).encode()
        async with self._answered(method, path, None, WRITE_TIMEOUT_S, data, content_type) as content:
            return _json(await content.read())

    @asynccontextmanager
    async def streaming(
        self, path: str, parameters: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The answer's body while it comes. `timeout_s`: for all of it; None: as long as it takes."""
        async with self._answered("GET", path, parameters, timeout_s) as content:
            yield content

    @asynccontextmanager
    async def _answered(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None,
        timeout_s: float | None,
        data: bytes | None = None,
        content_type: str = "",
    ) -> AsyncIterator[aiohttp.StreamReader]:
        identity = await self._identities.current()
        headers = {"Accept": JSON, "User-Agent": _USER_AGENT}
        if data is not None:
            headers["Content-Type"] = content_type
        if identity.header:
            headers["Authorization"] = identity.header
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        session = self._opened()
        try:
            async with session.request(
                method,
                self.access.server + path,
                params=parameters,
                data=data,
                headers=headers,
                timeout=timeout,
                ssl=True if identity.tls is None else identity.tls,
                server_hostname=self.access.server_name or None,
                allow_redirects=False,  # another server would get the token
            ) as answer:
                if answer.status not in _DONE:
                    raise await self._refusal(answer, identity)
                yield answer.content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CannotReach(f"{self.access.server}: {printable(_words(error), 300)}") from error

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


def _words(error: Exception) -> str:
    """Without aiohttp's of a connector: the address again, and where in memory an SSLContext is."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        return (os.strerror(error.errno) if error.errno > 0 else error.strerror) or str(error)  # below 0: getaddrinfo's
    return str(error) or type(error).__name__


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotReach(f"an answer that is no JSON: {printable(str(error), 100)}") from error


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        if hasattr(socket, name):  # commands that need no node run elsewhere than on Linux, too
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
