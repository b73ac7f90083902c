"""The agent's HTTP: metrics for Prometheus, and on a Unix socket what the command line asks for."""

import asyncio
import contextlib
import errno
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from aiohttp import web

from agent.errors import CannotStart
from agent.events import Events, event_list
from agent.kernel.held import Found
from agent.kernel.netns import NetnsRefused
from agent.kernel.refused import KernelRefused
from agent.metrics import CONTENT_TYPE, AgentMetrics
from agent.reconcile import Life, State
from agent.reconcile.life import Drifted, ProveNow
from agent.reconcile.pieces import plan_to_leave
from agent.settings import AgentSettings
from agent.supervisor.effects import Effects
from agent.supervisor.registry import Registry
from agent.supervisor.reports import PodReports
from agent.supervisor.standing import Known, agent_view, why_view
from agent.supervisor.status import status_view
from agent.supervisor.views import plan_view, pod_view, rules_view
from agent.supervisor.worker import PodWorker

VERIFY_TIMEOUT_S: Final = 15.0
"""Waiting for a turn among 250 pods, address detection of 2.5 s, and proofs of 1 s."""
_PROVABLE: Final = frozenset({State.INSTALLED, State.PROVED})
_HAVE_NO_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


class Admin:
    """Handlers over the registry; they answer JSON, errors too: `{"error": text}`."""

    def __init__(
        self,
        settings: AgentSettings,
        registry: Registry,
        effects: Effects,
        metrics: AgentMetrics,
        facts: Callable[[], dict[str, Any]],
        reports: PodReports,
        events: Events,
        known: Known,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._effects = effects
        self._metrics = metrics
        self._facts = facts
        self._reports = reports
        self._events = events
        self._known = known

    def admin_application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/pods", self._pods)
        application.router.add_get("/pods/{namespace}/{name}", self._pod)
        application.router.add_post("/pods/{namespace}/{name}/verify", self._verify)
        application.router.add_get("/rules/{namespace}/{name}", self._rules)
        application.router.add_post("/rules/{namespace}/{name}/diff", self._diff)
        application.router.add_get("/plan/{namespace}/{name}", self._plan)
        application.router.add_get("/why/{namespace}/{name}", self._why)
        application.router.add_get("/events", self._all_events)
        application.router.add_get("/events/{namespace}/{name}", self._events_of)
        application.router.add_get("/metrics", self._exposition)
        return application

    def metrics_application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/metrics", self._exposition)
        application.router.add_get("/status", self._status)
        return application

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(status_view(self._facts(), self._registry.lives()))

    async def _pods(self, request: web.Request) -> web.Response:
        return web.json_response({**self._facts(), "pods": [self._view(life) for life in self._registry.lives()]})

    async def _pod(self, request: web.Request) -> web.Response:
        return web.json_response(self._view(self._find(request).life))

    async def _verify(self, request: web.Request) -> web.Response:
        worker = self._find(request)
        if worker.life.state not in _PROVABLE:
            life = worker.life
            raise _problem(web.HTTPConflict, f"pod {life.pod} is {life.state.value}, not installed: {life.reason}")
        proved = asyncio.ensure_future(worker.proved())
        worker.post(ProveNow())
        try:
            life = await asyncio.wait_for(proved, VERIFY_TIMEOUT_S)
        except TimeoutError:
            raise _problem(
                web.HTTPGatewayTimeout, f"pod {worker.life.pod}: no proof within {VERIFY_TIMEOUT_S:g} s"
            ) from None
        if life.state in _PROVABLE and life.proofs is None:
            raise _problem(web.HTTPConflict, f"pod {life.pod} cannot be proved yet: {life.reason}")
        return web.json_response(self._view(life))

    async def _rules(self, request: web.Request) -> web.Response:
        life = self._find(request).life
        plan = plan_to_leave(life, self._settings.life)
        with _readable(life):
            counters = await self._effects.counters(life)
        return web.json_response({**rules_view(life, plan, counters), "backend": self._effects.backend})

    async def _plan(self, request: web.Request) -> web.Response:
        shown = plan_view(self._find(request).life, self._settings.life.plan)
        return web.json_response({**shown, "backend": self._effects.backend})

    async def _why(self, request: web.Request) -> web.Response:
        """Of a pod that the agent does not know, too: `pod` is null then, and its source may know why."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        worker = self._registry.find(namespace, name)
        answer: dict[str, Any] = {
            "agent": agent_view(self._known.standing(), self._registry.lives()),
            "listed_at": self._known.listed_at(namespace, name),
            "left_out": self._known.left_out(namespace, name),
            "pod": None,
        }
        if worker is not None:
            life, known = worker.life, self._known.own_object(namespace, name)
            found = await self._found(life)
            answer["pod"] = why_view(life, self._reports.of(life), self._settings.life.plan, found, known)
        return web.json_response(answer)

    async def _found(self, life: Life) -> Found | str:
        """Beside the plan, or why that cannot be told."""
        plan = life.plan_in_force
        if not life.installed or plan is None:
            return "no plan is in force"
        try:
            return await self._effects.compare(life, plan)
        except (KernelRefused, NetnsRefused, OSError) as error:
            return str(error)

    async def _diff(self, request: web.Request) -> web.Response:
        """With `?fix=1` what differs is put right, as after any drift."""
        worker = self._find(request)
        found = await self._compared(worker.life)
        answer: dict[str, Any] = {
            "pod": str(worker.life.pod),
            "changes": list(found.changes),
            "foreign": list(found.foreign),
        }
        if request.query.get("fix") == "1" and found.changes:
            left = await self._put_right(worker, found)
            answer |= {"fixed": not left.changes, "left": list(left.changes)}
        life = worker.life
        return web.json_response({**answer, "state": life.state.value, "reason": life.reason})

    async def _put_right(self, worker: PodWorker, found: Found) -> Found:
        event = Drifted(found.changes, "")
        self._reports.drifted(worker.life, event)
        proved = asyncio.ensure_future(worker.proved())
        worker.post(event)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(proved, VERIFY_TIMEOUT_S)
        return await self._compared(worker.life)

    async def _compared(self, life: Life) -> Found:
        plan = life.plan_in_force
        if not life.installed or plan is None:
            why = f": {life.reason}" if life.reason else ""
            raise _problem(web.HTTPConflict, f"pod {life.pod} is {life.state.value}, no plan is in force there{why}")
        with _readable(life):
            return await self._effects.compare(life, plan)

    async def _all_events(self, request: web.Request) -> web.Response:
        return web.json_response(event_list(self._events.all()))

    async def _events_of(self, request: web.Request) -> web.Response:
        """Also of a pod that is gone: its events outlive it, as Kubernetes' do."""
        found = self._events.all(request.match_info["namespace"], request.match_info["name"])
        return web.json_response(event_list(found))

    async def _exposition(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    def _view(self, life: Life) -> dict[str, Any]:
        return pod_view(life, self._reports.of(life))

    def _find(self, request: web.Request) -> PodWorker:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        worker = self._registry.find(namespace, name)
        if worker is None:
            raise _problem(web.HTTPNotFound, f"no pod {namespace}/{name} on this node: see `headgate pods`")
        return worker


@contextlib.contextmanager
def _readable(life: Life) -> Iterator[None]:
    try:
        yield
    except (KernelRefused, NetnsRefused, OSError) as error:
        raise _problem(web.HTTPConflict, f"pod {life.pod}: the rules cannot be read: {error}") from error


def _problem(kind: type[web.HTTPException], text: str) -> web.HTTPException:
    return kind(text=json.dumps({"error": text}), content_type="application/json")


@contextlib.asynccontextmanager
async def serving(application: web.Application, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Serves on listening sockets until the block ends; they are closed then."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        for sock in sockets:
            await web.SockSite(runner, sock).start()
        yield
    finally:
        await runner.cleanup()


def metrics_sockets(settings: AgentSettings) -> list[socket.socket]:
    """One listening socket an address. A family that this machine has not is left out. Raises CannotStart."""
    sockets: list[socket.socket] = []
    try:
        for address in settings.bind:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                sockets.append(_listen(family, address, settings.metrics_port))
            except OSError as error:
                if error.errno not in _HAVE_NO_FAMILY or family != socket.AF_INET6:
                    raise CannotStart(
                        f"metrics on {address} port {settings.metrics_port}: {error.strerror}; choose another "
                        "--metrics-port or --bind"
                    ) from error
    except CannotStart:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(16)
    except BaseException:
        sock.close()
        raise
    return sock
