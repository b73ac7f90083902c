"""Lists and watches: what is there, as of which version, and what happened since.

kubernetes.io/docs/reference/using-api/api-concepts: resource versions, chunks, watches, bookmarks. No
streaming lists (sendInitialEvents): they need an etcd of 3.4.25 or newer, and nobody here asks for them.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import web

from tests.kube.refusals import Refused, bad_request, expired
from tests.kube.resources import Body, Change, Kept, Key
from tests.kube.selecting import Selects, selector
from tests.kube.store import Store

_TOO_OLD: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
)


@dataclass(frozen=True)
class Wish:
    """What of a resource somebody asks for."""

    kept: Kept
    namespace: str
    selects: Selects
    query: dict[str, str]

    @classmethod
    def of(cls, kept: Kept, namespace: str, query: dict[str, str]) -> "Wish":
        """Raises Refused 400."""
        asked = query.get("resourceVersion", "")
        if asked and not asked.isdecimal():
            why = f'Invalid value: "{asked}": strconv.ParseUint: parsing "{asked}": invalid syntax'
            raise bad_request(f"invalid resource version: resourceVersion: {why}")
        chosen = selector(kept, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        return cls(kept, namespace, chosen, query)

    @property
    def version(self) -> str:
        return self.query.get("resourceVersion", "")

    def wants(self, body: Body) -> bool:
        of = body["metadata"].get("namespace", "")
        return (not self.namespace or of == self.namespace) and self.selects(body)


def listed(store: Store, wish: Wish) -> Body:
    """Raises Refused."""
    asked, exact = wish.version, wish.query.get("resourceVersionMatch") == "Exact"
    if wish.query.get("resourceVersionMatch") and not asked:
        raise bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if asked not in ("", "0") and int(asked) > store.version:
        said = f"Timeout: Too large resource version: {asked}, current: {store.version}"
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        raise Refused(504, "Timeout", said, {"causes": causes, "retryAfterSeconds": 1}, 1)
    version, begin = (int(asked) if exact else store.version), ("", "")
    if token := wish.query.get("continue", ""):
        version, begin = _of_token(token)
    if version < wish.kept.forgotten and (token or exact):
        raise expired(_TOO_OLD if token else f"The resourceVersion for the provided list is too old: {version}")
    there = _as_of(wish.kept, version)
    found = [body for key, body in sorted(there.items()) if key > begin and wish.wants(body)]
    limit = int(wish.query.get("limit") or 0) if asked != "0" else 0  # a cache tells all at once
    page = found[:limit] if limit else found
    left = len(found) - len(page)
    return list_body(wish.kept, version, page, _token(version, page[-1]) if left else "", left)


def _as_of(kept: Kept, version: int) -> dict[Key, Body]:
    there = dict(kept.objects)
    for change in reversed(kept.history):
        if change.version <= version:
            break
        metadata = change.body["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        if change.before is None:
            there.pop(key, None)
        else:
            there[key] = change.before
    return there


def _token(version: int, last: Body) -> str:
    metadata = last["metadata"]
    words = {"v": "meta.k8s.io/v1", "rv": version, "start": [metadata.get("namespace", ""), metadata["name"]]}
    return base64.urlsafe_b64encode(json.dumps(words).encode()).decode().rstrip("=")


def _of_token(token: str) -> tuple[int, Key]:
    try:
        words = json.loads(base64.urlsafe_b64decode(token + "=="))
        return int(words["rv"]), (str(words["start"][0]), str(words["start"][1]))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error


def list_body(kept: Kept, version: int, items: list[Body], more: str = "", left: int = 0) -> dict[str, Any]:
    """Core kinds in the order of their Go fields and without kind and version; custom ones in alphabetical order."""
    metadata = {**({"continue": more, "remainingItemCount": left} if more else {}), "resourceVersion": str(version)}
    if kept.custom:
        return {"apiVersion": kept.api_version, "items": items, "kind": f"{kept.kind}List", "metadata": metadata}
    bare = [{key: value for key, value in body.items() if key not in ("apiVersion", "kind")} for body in items]
    return {"kind": f"{kept.kind}List", "apiVersion": kept.api_version, "metadata": metadata, "items": bare}


# ── Watch ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class Noise(Protocol):
    """What a test wants of every watch: something said once, or no bookmarks."""

    garbage: bytes
    silent: bool


@dataclass
class Signals:
    """Each is set once, and another one put in its place."""

    changed: asyncio.Event
    cut: asyncio.Event


def first_lines(store: Store, wish: Wish) -> tuple[int, list[bytes]]:
    """From where to go on, and what is told before: all there is, to who names no version of its own. Raises Refused
    410."""
    if wish.version not in ("", "0"):
        if int(wish.version) < wish.kept.forgotten:
            raise expired(f"too old resource version: {wish.version} ({wish.kept.forgotten})")
        return int(wish.version), []
    found = [body for _, body in sorted(wish.kept.objects.items()) if wish.wants(body)]
    return store.version, [line("ADDED", body) for body in found]


async def streamed(
    store: Store, wish: Wish, answer: web.StreamResponse, version: int, signals: Signals, noise: Noise
) -> None:
    """What happens from `version` on; ends with TimeoutError when asked to, or when it is cut."""
    cut = signals.cut
    async with asyncio.timeout(float(wish.query.get("timeoutSeconds") or "3600")):
        while True:
            changed = signals.changed
            for change in store.since(wish.kept, version):
                version = change.version
                for told in _told(wish, change):
                    await answer.write(told)
            if noise.garbage:
                garbage, noise.garbage = noise.garbage, b""
                await answer.write(garbage)
            version = max(version, store.version)
            if _wants_bookmarks(wish) and not noise.silent:
                await answer.write(line("BOOKMARK", bookmark(wish.kept, version)))
            await _first(changed, cut)
            if cut.is_set():
                await answer.write(b'{"type":"ADDED","object":{"meta')
                assert answer._req is not None and answer._req.transport is not None
                answer._req.transport.abort()
                return


def _told(wish: Wish, change: Change) -> Iterator[bytes]:
    """An object that comes to be selected is added, one that is not any more is deleted, with what it was."""
    was = change.before is not None and wish.wants(change.before)
    now = change.what != "DELETED" and wish.wants(change.body)
    if now:
        yield line("MODIFIED" if was else "ADDED", change.body)
    elif was:
        assert change.before is not None
        last = change.body if change.what == "DELETED" else change.before
        version = {"resourceVersion": str(change.version)}
        yield line("DELETED", {**last, "metadata": {**last["metadata"], **version}})


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
            with suppress(asyncio.CancelledError):
                await wait


def _wants_bookmarks(wish: Wish) -> bool:
    return wish.query.get("allowWatchBookmarks") in ("1", "true")


def bookmark(kept: Kept, version: int) -> Body:
    return {"kind": kept.kind, "apiVersion": kept.api_version, "metadata": {"resourceVersion": str(version)}}


def line(what: str, body: Body) -> bytes:
    return json.dumps({"type": what, "object": body}).encode() + b"\n"
