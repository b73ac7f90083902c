"""An API server to test against, over real HTTP: what kubernetes.io/docs says under "API concepts", and no more.

Reading, writing, admission and permissions have modules of their own beside this one; here is what binds them, and the
faults of an API server's life, switched on by a test. tests/apiserver holds it against a real kube-apiserver.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.kube import discovery, permissions
from tests.kube.admission import Admission, Operation
from tests.kube.asked import Asked, asked_for
from tests.kube.crds import Crds
from tests.kube.patching import JSON, MERGE, STRATEGIC, patched
from tests.kube.permissions import User, permitted
from tests.kube.reading import Signals, Wish, first_lines, line, list_body, listed, streamed
from tests.kube.refusals import Refused, bad_request, no_such_path, not_supported, unsupported_media
from tests.kube.store import Body, Kept, Store
from tests.kube.traffic import Traffic
from tests.kube.users import Users
from tests.kube.writing import SUCCESS, DeleteOptions, Writing, deleted

_BODY_LIMIT: Final = 3 << 20
"""apiserver/pkg/server/config.go: MaxRequestBodyBytes."""

PodProxy = Callable[[web.Request, str, str, str], Awaitable[web.StreamResponse]]
"""Namespace, `name` or `name:port` or `scheme:name:port`, path: what a pod answers through the server."""


@dataclass
class Faults:
    """`refuse`: by plural, by resource with subresource, or by verb and one of these ("patch pods/status"), the status.
    `stale`: by plural, what a list from a lagging cache tells. `garbage`: said once on a watch. `silent`: no bookmarks.
    `slow_s`: before every answer."""

    token: str = ""
    refuse: dict[str, int] = field(default_factory=dict)
    retry_after_s: int = 0
    stale: dict[str, tuple[int, list[Body]]] = field(default_factory=dict)
    garbage: bytes = b""
    silent: bool = False
    slow_s: float = 0.0

    def code(self, asked: Asked) -> int:
        keys = (asked.with_subresource, asked.resource)
        for key in (*(f"{asked.verb} {one}" for one in keys), *keys):
            if key in self.refuse:
                return self.refuse[key]
        return 0


class StandIn:
    """`url` once `serving`. `asked` holds every request as method, path and query, `traffic` how much it was.

    `users.strict`: tokens and certificates are looked at, and RBAC rules what they may. `reaches`: where a webhook's
    Service answers. `pod_proxy`: who answers for pods.
    """

    def __init__(self, store: Store, tls: ssl.SSLContext | None = None) -> None:
        self.store = store
        self._tls = tls
        self.faults = Faults()
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.traffic = Traffic()
        self.users = Users(store)
        self.admission = Admission(store)
        self.pod_proxy: PodProxy | None = None
        self.url = ""
        self.watchers = 0
        self._writing = Writing(store)
        self._crds = Crds(store)
        self._signals = Signals(asyncio.Event(), asyncio.Event())
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
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        if listener is None:
            site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True, ssl_context=self._tls)
            await site.start()
        else:
            await web.SockSite(self._runner, listener, ssl_context=self._tls).start()
        self._port = int(self._runner.addresses[0][1])
        self.url = f"http{'' if self._tls is None else 's'}://127.0.0.1:{self._port}"

    async def down(self) -> None:
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ── What a test does to it ─────────────────────────────────────────────────────────────────────────────────────
    def apply(self, kept: Kept, body: Body, namespace: str = "default") -> None:
        """Created, or replaced: as it is, status and all."""
        key = (namespace if kept.namespaced else "", body["metadata"]["name"])
        (self.store.replace if key in kept.objects else self.store.create)(kept, key[0], body)
        self._told()

    def delete(self, kept: Kept, name: str, namespace: str = "default") -> None:
        self.store.delete(kept, namespace if kept.namespaced else "", name)
        self._told()

    def cut(self) -> None:
        """Every watch, in the middle of a chunk."""
        self._signals.cut.set()
        self._signals.cut = asyncio.Event()

    def lists_of(self, plural: str) -> list[dict[str, str]]:
        return [query for _, path, query in self.asked if path.endswith(f"/{plural}") and "watch" not in query]

    def watches_of(self, plural: str) -> list[dict[str, str]]:
        return [query for _, path, query in self.asked if path.endswith(f"/{plural}") and "watch" in query]

    def writes(self, plural: str = "") -> list[tuple[str, str, dict[str, str]]]:
        return [one for one in self.asked if one[0] not in ("GET", "HEAD") and f"/{plural}" in one[1]]

    def _told(self) -> None:
        self._crds.follow()
        self._signals.changed.set()
        self._signals.changed = asyncio.Event()

    # ── HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append((request.method, request.path, query))
        asked = asked_for(request.method, request.path, query)
        if self.faults.slow_s:
            await asyncio.sleep(self.faults.slow_s)
        user = None
        try:
            if self.faults.token and request.headers.get("Authorization") != f"Bearer {self.faults.token}":
                raise Refused(401, "Unauthorized", "Unauthorized")
            user = self.users.of(request)
            self._permit(user, asked)
        except Refused as error:
            with self.traffic.of("" if user is None else user.name, asked, request) as answers:
                answers.append(_refused(error))
                return await _finished(request, answers[0])
        with self.traffic.of(user.name, asked, request) as answers:
            try:
                if asked.verb == "watch":
                    return await self._watch(request, asked, answers)
                answers.append(await self._answered(request, asked, user))
            except Refused as error:
                answers.append(_refused(error))
            return await _finished(request, answers[0])

    def _permit(self, user: User, asked: Asked) -> None:
        if code := self.faults.code(asked):
            raise permissions.refusal(user, asked, code, self.faults.retry_after_s)
        if self.users.strict and not permitted(self.store, user, asked):
            raise permissions.refusal(user, asked)

    async def _answered(self, request: web.Request, asked: Asked, user: User) -> web.StreamResponse:
        if not asked.resource:
            told = discovery.told(self.store, request.path)
            return web.Response(text=told) if isinstance(told, str) else web.json_response(told)
        if asked.resource == "selfsubjectaccessreviews":
            return web.json_response(self._reviewed(user, await _read(request)), status=201)
        kept = self._kept(asked)
        if kept.kind == "Pod" and asked.subresource == "proxy" and self.pod_proxy is not None:
            return await self.pod_proxy(request, asked.namespace, asked.name, asked.rest)
        if kept.kind == "ServiceAccount" and asked.subresource == "token" and asked.verb == "create":
            self._writing.found(kept, asked.namespace, asked.name)
            return web.json_response(self.users.give(asked.namespace, asked.name, await _read(request)), status=201)
        if kept.kind == "Pod" and asked.subresource == "binding" and asked.verb == "create":
            self._writing.bind(kept, asked.namespace, asked.name, await _read(request))
            return self._done(SUCCESS, 201, ())
        if asked.subresource not in ("", "finalize") and not (asked.subresource == "status" and kept.has_status):
            raise no_such_path()
        match asked.verb:
            case "list":
                return web.json_response(self._list(kept, asked, dict(request.query)))
            case "get":
                return web.json_response(self._writing.found(kept, *_key(kept, asked)))
            case "create" | "update" | "patch" | "delete" | "deletecollection":
                return await self._write(request, asked, kept, user)
        raise not_supported()

    def _kept(self, asked: Asked) -> Kept:
        kept = self.store.resources.get((asked.group, asked.resource))
        if kept is None or kept.version != asked.version:
            raise no_such_path(any(group == asked.group for group, _ in self.store.resources))
        return kept

    def _reviewed(self, user: User, review: Body) -> Body:
        wanted = review["spec"].get("resourceAttributes")
        if wanted is None:
            path = review["spec"]["nonResourceAttributes"]
            asked = Asked(path["verb"], path["path"])
        else:
            words = ("group", "version", "resource", "namespace", "name", "subresource")
            asked = Asked(wanted.get("verb", ""), "", *(wanted.get(word, "") for word in words))
        refused = self.faults.code(asked) in (401, 403)
        allowed = not refused and (not self.users.strict or permitted(self.store, user, asked))
        kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        return {**review, **kind, "metadata": {}, "status": {"allowed": allowed}}

    def _list(self, kept: Kept, asked: Asked, query: dict[str, str]) -> Body:
        wish = Wish.of(kept, asked.namespace if kept.namespaced else "", query)
        if wish.version and kept.plural in self.faults.stale:
            return list_body(kept, *self.faults.stale[kept.plural])
        return listed(self.store, wish)

    async def _watch(self, request: web.Request, asked: Asked, answers: list[web.StreamResponse]) -> web.StreamResponse:
        kept = self._kept(asked)
        wish = Wish.of(kept, asked.namespace if kept.namespaced else "", dict(request.query))
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answers.append(answer)
        await answer.prepare(request)
        self.watchers += 1
        try:
            version, lines = first_lines(self.store, wish)
            for told in lines:
                await answer.write(told)
            await streamed(self.store, wish, answer, version, self._signals, self.faults)
        except Refused as error:  # after the answer began: as an event
            await answer.write(line("ERROR", error.body()))
        except (TimeoutError, ConnectionResetError):  # asked to end, or whoever watched has gone
            pass
        finally:
            self.watchers -= 1
        return answer

    # ── Writes ─────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _write(self, request: web.Request, asked: Asked, kept: Kept, user: User) -> web.Response:
        dry_run = request.query.get("dryRun") == "All"
        change = Operation(asked, kept, user, dry_run)
        sent = await _read(request)
        match asked.verb:
            case "create" if not asked.name or kept.kind == "Namespace":
                body = self._writing.prepared(kept, asked.namespace if kept.namespaced else "", sent)
                body, warnings = await self.admission.admitted(change, body, None)
                made = self._writing.create(kept, asked.namespace if kept.namespaced else "", body, dry_run)
                return self._done(made, 201, warnings)
            case "update":
                there = (key := _key(kept, asked)) in kept.objects
                before = kept.objects.get(key)
                body, warnings = await self.admission.admitted(change, sent, before)
                made = self._writing.update(kept, *key, asked.subresource, body, dry_run)
                return self._done(made, 200 if there else 201, warnings)
            case "patch":
                return await self._patch(request, change, sent)
            case "delete":
                return await self._delete(request, change, sent)
            case "deletecollection":
                return await self._delete_all(request, change)
        raise not_supported()

    async def _patch(self, request: web.Request, change: Operation, sent: Any) -> web.Response:
        kept, asked = change.kept, change.asked
        if request.content_type not in ((JSON, MERGE) if kept.custom else (JSON, MERGE, STRATEGIC)):
            raise unsupported_media()
        before = self._writing.found(kept, *_key(kept, asked))
        wanted = patched(before, request.content_type, sent)
        wanted, warnings = await self.admission.admitted(change, wanted, before)
        made = self._writing.patch(kept, before, wanted, asked.subresource, change.dry_run)
        return self._done(made, 200, warnings)

    async def _delete(self, request: web.Request, change: Operation, sent: Any) -> web.Response:
        kept, asked = change.kept, change.asked
        options = DeleteOptions.of(sent or {}, dict(request.query))
        before = self._writing.found(kept, *_key(kept, asked))
        _, warnings = await self.admission.admitted(change, None, before)
        body, is_there = self._writing.delete(kept, *_key(kept, asked), options, change.dry_run)
        whole = is_there or kept.kind in ("Pod", "Service", "ServiceAccount")
        return self._done(body if whole else deleted(kept, body), 200, warnings)

    async def _delete_all(self, request: web.Request, change: Operation) -> web.Response:
        kept, asked = change.kept, change.asked
        found = self._list(kept, asked, {name: value for name, value in request.query.items() if name != "limit"})
        for body in found["items"]:
            key = (body["metadata"].get("namespace", ""), body["metadata"]["name"])
            self._writing.delete(kept, *key, DeleteOptions.of({}, dict(request.query)), change.dry_run)
        return self._done(found, 200, ())

    def _done(self, body: Body, status: int, warnings: tuple[str, ...]) -> web.Response:
        self._told()
        answer = web.json_response(body, status=status)
        for warning in warnings:
            escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
            answer.headers.add("Warning", f'299 - "{escaped}"')  # RFC 9111, 5.5; apiserver/pkg/warning
        return answer


def _key(kept: Kept, asked: Asked) -> tuple[str, str]:
    return (asked.namespace if kept.namespaced else "", asked.name)


async def _read(request: web.Request) -> Any:
    data = await request.read()
    if not data:
        return {}
    try:
        return json.loads(data)
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error


def _refused(error: Refused) -> web.Response:
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    if error.code == 404 and not error.reason:
        return web.Response(text=error.message, status=404)
    return web.json_response(error.body(), status=error.code, headers=headers)


async def _finished(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """Written here, so that what it took is known when it is counted."""
    await answer.prepare(request)
    await answer.write_eof()
    return answer
