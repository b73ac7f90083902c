"""Whether a rollout may go on to the next node, told to the kubelet.

Asked for once: pods and objects are known. An API server that is away afterwards makes no agent unready: what is known
stays in force, pods start, and all nodes of a cluster would be unready at once for what no restart can mend. What is
this node's own is asked for always.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web

from agent.printable import printable

_REASON_CHARACTERS: Final = 400


class Source(Protocol):
    @property
    def problems(self) -> tuple[str, ...]: ...


class Chain(Protocol):
    @property
    def problem(self) -> str: ...


class Readiness:
    """`objects` None: proxies are told of none; `complete`: of all. `chain` None: no CNI plugin is kept."""

    def __init__(
        self, pods: Source, objects: Source | None, complete: Callable[[], bool], chain: Chain | None = None
    ) -> None:
        self._pods = pods
        self._objects = objects
        self._complete = complete
        self._chain = chain
        self._sockets: dict[Path, int] | None = None
        self._knew_all = False

    def opened(self, sockets: Iterable[Path]) -> None:
        """Pods are known, and the agent answers at each of these. Raises OSError."""
        self._sockets = {path: path.lstat().st_ino for path in sockets}

    def missing(self) -> list[str]:
        """What keeps it from being ready; empty when it is."""
        if self._sockets is None:
            return [_with("pods are not known yet", self._pods.problems)]
        lost = [f"{path} is no longer this agent's: start it anew" for path in self._sockets if self._is_lost(path)]
        if self._chain is not None and self._chain.problem:
            lost.append(f"CNI: {self._chain.problem}")
        if not self._knew_all and self._objects is not None and not self._complete():
            lost.append(_with("objects are not all known yet", self._objects.problems))
        self._knew_all = self._knew_all or not lost
        return lost

    def serve_in(self, application: web.Application) -> None:
        application.router.add_get("/healthz/ready", self._ready)
        application.router.add_get("/healthz/live", self._live)

    def _is_lost(self, path: Path) -> bool:
        assert self._sockets is not None
        try:
            return path.lstat().st_ino != self._sockets[path]
        except OSError:
            return True

    async def _ready(self, request: web.Request) -> web.Response:
        missing = self.missing()
        if not missing:
            return web.Response(text="ready\n")
        told = (printable(reason, _REASON_CHARACTERS) for reason in missing)
        return web.Response(status=503, text="".join(f"not ready: {reason}\n" for reason in told))

    async def _live(self, request: web.Request) -> web.Response:
        """An event loop that hangs does not answer; whatever else is wrong, a restart would not mend it."""
        return web.Response(text="live\n")


def _with(what: str, problems: tuple[str, ...]) -> str:
    return f"{what}: {problems[0]}" if problems else what
