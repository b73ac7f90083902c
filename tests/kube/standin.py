"""An API server to test against, over real HTTP: what kubernetes.io/docs says under "API concepts", and no more.

List with pages, resourceVersion and its match, watch with bookmarks, 410 Gone, discovery, create, replace, delete; and
the faults of an API server's life, switched on by a test.
"""

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.kube.store import Body, Conflict, Kept, Store


@dataclass
class Faults:
    """`refuse`: by plural, the status. `stale`: by plural, what a list from a lagging cache tells. `garbage`: said once
    on a watch. `silent`: no bookmarks."""

    token: str = ""
    refuse: dict[str, int] = field(default_factory=dict)
    retry_after_s: int = 0
    stale: dict[str, tuple[int, list[Body]]] = field(default_factory=dict)
    garbage: bytes = b""
    silent: bool = False


class StandIn:
    """`url` once `serving`. `asked` holds every request as method, path and query."""

    def __init__(self, store: Store, tls: ssl.SSLContext | None = None) -> None:
        self.store = store
        self._tls = tls
        self.faults = Faults()
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""
        self.watchers = 0
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["StandIn"]:
        await self.up()
        try:
            yield self
        finally:
            await self.down()

    async def up(self, listener: socket.socket | None = None) -> None:
        """Also again, at the same port. `listener`: where to answer, of another namespace maybe."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        if listener is None:
            site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True, ssl_context=self._tls)
            await site.start()
        else:
            await web.SockSite(self._runner, listener).start()
        self._port = int(self._runner.addresses[0][1])
        self.url = f"http{'' if self._tls is None else 's'}://127.0.0.1:{self._port}"

    async def down(self) -> None:
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ── What a test does to it ─────────────────────────────────────────────────────────────────────────────────────
    def apply(self, kept: Kept, body: Body, namespace: str = "default") -> None:
        """Created, or replaced."""
        key = (namespace if kept.namespaced else "", body["metadata"]["name"])
        (self.store.replace if key in kept.objects else self.store.create)(kept, key[0], body)
        self._told()

    def delete(self, kept: Kept, name: str, namespace: str = "default") -> None:
        self.store.delete(kept, namespace if kept.namespaced else "", name)
        self._told()

    def cut(self) -> None:
        """Every watch, in the middle of a chunk."""
        self._cut.set()
        self._cut = asyncio.Event()

    def lists_of(self, plural: str) -> list[dict[str, str]]:
        return [query for _, path, query in self.asked if path.endswith(f"/{plural}") and "watch" not in query]

    def watches_of(self, plural: str) -> list[dict[str, str]]:
        return [query for _, path, query in self.asked if path.endswith(f"/{plural}") and "watch" in query]

    def _told(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ── HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path, dict(request.query)))
        if self.faults.token and request.headers.get("Authorization") != f"Bearer {self.faults.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        parts = request.path.strip("/").split("/")
        if parts[0] == "api":
            return await self._resource(request, "", parts[1], parts[2:])
        if parts[0] != "apis" or len(parts) < 2:
            return _status(404, "NotFound", "the server could not find the requested resource")
        if len(parts) <= 3:
            return self._discovery(parts[1], parts[2] if len(parts) == 3 else "")
        return await self._resource(request, parts[1], parts[2], parts[3:])

    def _discovery(self, group: str, version: str) -> web.Response:
        here = [kept for (of, _), kept in self.store.resources.items() if of == group]
        versions = sorted({kept.version for kept in here})
        if not here or (version and version not in versions):
            return _status(404, "NotFound", "the server could not find the requested resource")
        if not version:
            named = [{"groupVersion": f"{group}/{one}", "version": one} for one in versions]
            return web.json_response({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": named})
        listed = [
            {"name": kept.plural, "namespaced": kept.namespaced, "kind": kept.kind, "verbs": ["list", "watch"]}
            for kept in here
            if kept.version == version
        ]
        return web.json_response({"kind": "APIResourceList", "groupVersion": f"{group}/{version}", "resources": listed})

    async def _resource(self, request: web.Request, group: str, version: str, rest: list[str]) -> web.StreamResponse:
        namespace = ""
        if rest[0] == "namespaces" and len(rest) >= 3:
            namespace, rest = rest[1], rest[2:]
        kept = self.store.resources.get((group, rest[0]))
        if kept is None or kept.version != version:
            return _status(404, "NotFound", "the server could not find the requested resource")
        if (code := self.faults.refuse.get(kept.plural, 0)) != 0:
            headers = {"Retry-After": str(self.faults.retry_after_s)} if self.faults.retry_after_s else {}
            who = 'User "system:serviceaccount:headgate:agent" cannot list resource'
            return _status(code, {403: "Forbidden", 429: "TooManyRequests"}.get(code, "InternalError"), who, headers)
        if request.method != "GET":
            return await self._write(request, kept, namespace, rest[1:])
        if len(rest) > 1:
            found = kept.objects.get((namespace, rest[1]))
            return _status(404, "NotFound", "not found") if found is None else web.json_response(found)
        if (asked := request.query.get("resourceVersion", "")) and not asked.isdecimal():
            return _status(400, "BadRequest", f'resourceVersion: Invalid value: "{asked}"')
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request, kept, namespace)
        return self._list(request, kept, namespace)

    async def _write(self, request: web.Request, kept: Kept, namespace: str, rest: list[str]) -> web.Response:
        try:
            if request.method == "POST":
                made = self.store.create(kept, namespace, await request.json())
            elif request.method == "PUT":
                made = self.store.replace(kept, namespace, await request.json())
            else:
                made = self.store.delete(kept, namespace, rest[0])
        except Conflict as error:
            return _status(409, "Conflict", str(error))
        except KeyError:
            return _status(404, "NotFound", "not found")
        self._told()
        return web.json_response(made, status=201 if request.method == "POST" else 200)

    def _list(self, request: web.Request, kept: Kept, namespace: str) -> web.Response:
        asked = request.query.get("resourceVersion", "")
        if asked not in ("", "0") and int(asked) > self.store.version:
            return _status(504, "Timeout", f"Too large resource version: {asked}, current: {self.store.version}")
        if asked and kept.plural in self.faults.stale:
            version, found = self.faults.stale[kept.plural]
            return web.json_response(_list_body(kept, version, found, ""))
        begin, version = 0, self.store.version
        if token := request.query.get("continue", ""):
            version, begin = json.loads(base64.b64decode(token))
            if version < kept.forgotten:
                return _status(410, "Expired", "The provided continue parameter is too old")
        found = [body for (of, _), body in sorted(kept.objects.items()) if not namespace or of == namespace]
        limit = int(request.query.get("limit", "0")) if asked != "0" else 0  # a cache tells all at once
        page = found[begin : begin + limit] if limit else found[begin:]
        left = begin + len(page) < len(found)
        more = base64.b64encode(json.dumps([version, begin + len(page)]).encode()).decode() if left else ""
        return web.json_response(_list_body(kept, version, page, more))

    async def _watch(self, request: web.Request, kept: Kept, namespace: str) -> web.StreamResponse:
        version = int(request.query.get("resourceVersion") or self.store.version)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        cut = self._cut
        self.watchers += 1
        try:
            if version < kept.forgotten:
                await answer.write(_line("ERROR", _status_body(410, "Expired", "too old resource version")))
                return answer
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", "3600"))):
                await self._stream(answer, kept, namespace, version, cut)
        except TimeoutError:
            pass
        finally:
            self.watchers -= 1
        return answer

    async def _stream(
        self, answer: web.StreamResponse, kept: Kept, namespace: str, version: int, cut: asyncio.Event
    ) -> None:
        while True:
            changed = self._changed
            for change in list(self.store.since(kept, version)):
                version = change.version
                if not namespace or change.body["metadata"].get("namespace") == namespace:
                    await answer.write(_line(change.what, change.body))
            if self.faults.garbage:
                garbage, self.faults.garbage = self.faults.garbage, b""
                await answer.write(garbage)
            version = max(version, self.store.version)
            bookmark = {
                "kind": kept.kind,
                "apiVersion": kept.api_version,
                "metadata": {"resourceVersion": str(version)},
            }
            if not self.faults.silent:
                await answer.write(_line("BOOKMARK", bookmark))
            waits = [asyncio.create_task(changed.wait()), asyncio.create_task(cut.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                    with suppress(asyncio.CancelledError):
                        await wait
            if cut.is_set():
                await answer.write(b'{"type":"ADDED","object":{"meta')
                assert answer._req is not None and answer._req.transport is not None
                answer._req.transport.abort()
                return


def _list_body(kept: Kept, version: int, items: list[Body], more: str) -> dict[str, Any]:
    """Core kinds in the order of their Go fields, others' in alphabetical order; items without kind and version."""
    metadata = {"resourceVersion": str(version), **({"continue": more} if more else {})}
    bare = [{key: value for key, value in body.items() if key not in ("apiVersion", "kind")} for body in items]
    if kept.group.endswith("istio.io"):
        return {"apiVersion": kept.api_version, "items": items, "kind": f"{kept.kind}List", "metadata": metadata}
    return {"kind": f"{kept.kind}List", "apiVersion": kept.api_version, "metadata": metadata, "items": bare}


def _line(what: str, body: Body) -> bytes:
    return json.dumps({"type": what, "object": body}).encode() + b"\n"


def _status_body(code: int, reason: str, message: str) -> Body:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(_status_body(code, reason, message), status=code, headers=headers)
