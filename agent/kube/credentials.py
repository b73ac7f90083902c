"""Who the agent is at the API server, now: tokens are read again, plugins run again, before they are over.

A renewed certificate needs a new TLS context, so what is given is both: the header and the context.
"""

import asyncio
import contextlib
import json
import os
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from agent.kube.access import Access, ClientCertificate, ExecPlugin, Pem, Token
from agent.kube.errors import CannotReach, InvalidAccess
from agent.printable import printable

REREAD_S: Final = 60.0
"""client-go transport/token_source.go reads a token's file again each minute; the kubelet renews it minutes early."""
_EARLY_S: Final = 10.0
"""A plugin's token is not used in its last seconds: a request may be under way for some of them."""
_PLUGIN_TIMEOUT_S: Final = 30.0
"""A plugin asks a cloud's service; kubectl waits for ever."""
_OUTPUT_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """`header`: of Authorization, empty for none. `tls` None: the server is asked in clear (http://)."""

    header: str
    tls: ssl.SSLContext | None


@dataclass(frozen=True, slots=True)
class _Held:
    identity: Identity
    until_s: float
    """On the monotonic clock."""


class Identities:
    """`current` gives the identity for the next request; `refused` says that the server did not know it (401)."""

    def __init__(self, access: Access, now_s: Callable[[], float], time_s: Callable[[], float]) -> None:
        self._access = access
        self._now_s = now_s
        self._time_s = time_s
        self._held: _Held | None = None
        self._lock = asyncio.Lock()

    async def current(self) -> Identity:
        """Raises InvalidAccess, CannotReach when a plugin fails."""
        async with self._lock:  # a plugin runs once, however many ask
            if self._held is None or self._now_s() >= self._held.until_s:
                self._held = await self._made()
            return self._held.identity

    def refused(self, identity: Identity) -> None:
        """The next request reads it anew, unless that has happened meanwhile."""
        if self._held is not None and self._held.identity is identity:
            self._held = None

    async def _made(self) -> _Held:
        access, soon = self._access, self._now_s() + REREAD_S
        match access.credentials:
            case Token() as token:
                return _Held(Identity(_bearer(_read_token(token)), tls_context(access)), soon)
            case ClientCertificate() as certificate:
                return _Held(Identity("", tls_context(access, certificate)), soon)
            case ExecPlugin() as plugin:
                return await self._from_plugin(plugin)
            case None:
                return _Held(Identity("", tls_context(access)), soon)

    async def _from_plugin(self, plugin: ExecPlugin) -> _Held:
        given = _credential(plugin, await _run(plugin, self._access))
        until_s = float("inf")  # until the server says otherwise, as client-go has it
        if given.expires_s is not None:
            until_s = self._now_s() + max(0.0, given.expires_s - self._time_s() - _EARLY_S)
        header = _bearer(given.token) if given.token else ""
        return _Held(Identity(header, tls_context(self._access, given.certificate)), until_s)


def tls_context(access: Access, client: ClientCertificate | None = None) -> ssl.SSLContext | None:
    """Raises InvalidAccess for a certificate or key that cannot be read."""
    if access.server.startswith("http://"):
        return None
    try:
        # With the machine's roots only where they count: to read them takes 20 ms of the loop, each minute.
        context = ssl.create_default_context(cadata=None if access.ca is None else _text(access.ca))
        if access.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if client is not None:
            _load_client(context, client)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidAccess(f"{access.origin}: certificate or key: {error}") from error
    return context


def _load_client(context: ssl.SSLContext, client: ClientCertificate) -> None:
    """OpenSSL takes both from files only: a private one, gone again at once."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:  # 0600
        both.write(_text(client.certificate) + "\n" + _text(client.key))
        both.flush()
        context.load_cert_chain(both.name)


def _text(pem: Pem) -> str:
    return pem.file.read_text("ascii") if pem.file is not None else pem.text


def _read_token(token: Token) -> str:
    if token.file is None:
        return token.text
    try:
        found = token.file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise InvalidAccess(f"{token.file}: {error}") from error
    if not found:
        raise InvalidAccess(f"{token.file}: is empty")
    return found


def _bearer(token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidAccess("the token holds what no header may hold")
    return f"Bearer {token}"


# ── Plugins ────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class _Given:
    token: str
    certificate: ClientCertificate | None
    expires_s: float | None


async def _run(plugin: ExecPlugin, access: Access) -> bytes:
    info: dict[str, Any] = {"interactive": False}
    if plugin.gives_cluster:
        info["cluster"] = {"server": access.server, "tls-server-name": access.server_name}
    asked = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": info}
    environment = {**os.environ, **dict(plugin.environment), "KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f"; {printable(plugin.hint, 300)}" if plugin.hint else ""
        raise InvalidAccess(f"{access.origin}: {printable(plugin.command)}: {error.strerror}{hint}") from error
    try:
        told, complaint = await asyncio.wait_for(process.communicate(), _PLUGIN_TIMEOUT_S)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and what it left behind holds its output open
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise CannotReach(f"{printable(plugin.command)}: no answer within {_PLUGIN_TIMEOUT_S:g} s") from None
        raise
    if process.returncode:
        said = printable(complaint.decode("utf-8", "replace").strip(), 300)
        raise CannotReach(f"{printable(plugin.command)}: exit status {process.returncode}: {said}")
    return told[:_OUTPUT_LIMIT]


def _credential(plugin: ExecPlugin, told: bytes) -> _Given:
    """Of an ExecCredential's status (client.authentication.k8s.io/v1)."""
    try:
        credential = json.loads(told)
        status = credential["status"]
        if credential["apiVersion"] != plugin.api_version:
            raise ValueError(f"its apiVersion is not {plugin.api_version}")
        certificate, key = status.get("clientCertificateData", ""), status.get("clientKeyData", "")
        expires = status.get("expirationTimestamp")
        token = str(status.get("token", ""))
        if not token and not (certificate and key):
            raise ValueError("it has neither a token nor a certificate with its key")
        client = ClientCertificate(Pem(str(certificate)), Pem(str(key))) if certificate else None
        return _Given(token, client, None if expires is None else datetime.fromisoformat(str(expires)).timestamp())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = printable(Path(plugin.command).name)
        raise CannotReach(f"{what}: what it printed is no ExecCredential: {printable(str(error), 200)}") from error
