"""The stand-in on a thread of its own, for tests that wait for processes; and what a directory of YAML would tell."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.sources.kinds import KINDS
from agent.sources.manifests import objects_in
from tests.kube.resources import builtins
from tests.kube.standin import StandIn
from tests.kube.store import Kept, Store

_CLUSTER_WIDE = ("Namespace",)


def serves_all(store: Store) -> dict[str, Kept]:
    """By kind: what every server has, and the custom kinds. Of each the first version that the agent understands."""
    born_with = [store.serve(kept) for kept in builtins()]
    found: dict[str, Kept] = {kept.kind: kept for kept in born_with if kept.group != "events.k8s.io"}
    for kind in KINDS:
        if (kind.group, kind.plural) not in store.resources:
            kept = Kept(kind.group, kind.versions[0], kind.kind, kind.plural, kind.kind not in _CLUSTER_WIDE)
            found.setdefault(kind.kind, store.serve(kept))
    return found


class Beside:
    """Calls of the stand-in, from the test's own thread."""

    def __init__(self, server: StandIn, kinds: dict[str, Kept], loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._kinds = kinds
        self._loop = loop

    def up(self, listener: socket.socket) -> None:
        asyncio.run_coroutine_threadsafe(self.server.up(listener), self._loop).result(5)

    def down(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.down(), self._loop).result(5)

    def apply(self, text: str) -> None:
        """As `kubectl apply` does: every object of the YAML."""
        for name, body in objects_in(text):
            self._do(self.server.apply, self._kinds[name.kind], body, name.namespace)

    def put(self, kind: str, body: dict[str, Any], namespace: str = "default") -> None:
        """`apply`, of one object that need not be read first."""
        self._do(self.server.apply, self._kinds[kind], body, namespace)

    def cut(self) -> None:
        """Every watch, in the middle of a chunk."""
        self._loop.call_soon_threadsafe(self.server.cut)

    def forget_history(self) -> None:
        """As etcd does every five minutes; then every watch is cut, and who comes back is told 410."""
        self._loop.call_soon_threadsafe(self.server.store.compact)
        self.cut()

    def apply_directory(self, path: Path) -> None:
        for file in sorted(path.glob("*.yaml")):
            self.apply(file.read_text("utf-8"))

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self._do(self.server.delete, self._kinds[kind], name, namespace)

    def _do(self, function: Callable[..., Any], *arguments: Any) -> None:
        done: Future[None] = Future()

        def call() -> None:
            try:
                function(*arguments)
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._loop.call_soon_threadsafe(call)
        done.result(5)


@contextmanager
def standing_beside(tls: ssl.SSLContext | None = None) -> Iterator[Beside]:
    store = Store()
    kinds = serves_all(store)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="api-server")
    thread.start()
    beside = Beside(StandIn(store, tls), kinds, loop)
    try:
        yield beside
    finally:
        beside.down()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
