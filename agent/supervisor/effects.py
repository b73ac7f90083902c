"""Performs a life's actions and says how each ended, as an event. Nothing is decided here."""

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from agent.handoff.fds import FdStore
from agent.handoff.objects import ObjectsServer
from agent.handoff.zds import Acked as ZdsAcked
from agent.handoff.zds import Nacked as ZdsNacked
from agent.handoff.zds import NoProxy, ZdsServer
from agent.kernel import probe
from agent.kernel.held import Found
from agent.kernel.netns import NetnsRefused, NetnsThreads, OpenNetns, open_netns
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.memory import Tidying
from agent.metrics import AgentMetrics
from agent.plan import OnUnsteered, PlanSettings, RedirectPlan
from agent.plan.drift import Form
from agent.pods import NetnsId, Proof, Proofs, ProofStatus
from agent.printable import printable
from agent.reconcile.life import (
    Acked,
    Announce,
    CountSteered,
    Drain,
    Drained,
    Event,
    Heal,
    Healed,
    Inspect,
    Inspected,
    Inspection,
    Install,
    Installed,
    Life,
    Nacked,
    NetnsLost,
    NetnsUnfit,
    ProofsTaken,
    ProxyAbsent,
    Refused,
    Remove,
    Removed,
    SteeredLeft,
    Withdraw,
    Withdrawn,
)
from agent.supervisor import inside
from agent.supervisor.budget import MOST, Budget
from agent.supervisor.inside import Applied, LookedAfter
from agent.supervisor.precedence import Precedence
from agent.supervisor.reports import PodReports, key_of
from agent.supervisor.unsteered import Unsteered
from proxy.api.zds import WorkloadInfo

_log: Final = logging.getLogger("headgate.effects")
P = ParamSpec("P")
T = TypeVar("T")

Effect = Inspect | Announce | Install | Heal | Drain | CountSteered | Remove | Withdraw

PROVERS: Final = 16
"""Pods proved at once: each proof has one second, and 250 at once would share one core (DESIGN 5: ≤ 3 % of it)."""
POLICY_WAIT_S: Final = 60.0
"""As long as from one proof to the next (LifeSettings.prove_every_s): then it is taken, and says what it finds. A proxy
has the policy of 10,000 pods, 10,000 Services and 50,000 endpoints after some 10 s."""
LAST_ANSWERS_S: Final = 2.0
"""For a client that asks as often as every 1.5 s: the proxy closes what is idle half a second before the end
(proxy.worker_pods). 250 pods have it at once, within agent.supervisor.service.CLEANUP_S."""
_LOOKED_AT_EVERY_S: Final = 1.0
"""Of 250 pods at once: four times as often, 42 of them did not end within eight seconds."""
_ACCEPTED_WITHIN_S: Final = 0.1
"""What was led to the proxy until just now is out of its listeners' queues by then: they close with its first word."""


class _NetnsGone(Exception):
    """Of the namespace's path; the kernel says ENOENT of other things, too."""


class Watch(Protocol):
    """What is told to agent.supervisor.drift_watch.DriftWatch, by the key of a life."""

    def watch(
        self, uid: str, netns_path: str, netns_id: NetnsId, plan: RedirectPlan, form: Form = Form.STEERING
    ) -> None: ...

    def forget(self, uid: str) -> None: ...

    def ours(self, uid: str) -> AbstractContextManager[None]: ...


class Rules(Protocol):
    """What is done inside a pod's namespace, with one backend: agent.supervisor.inside, or IptablesRules."""

    def inspect(self, settings: PlanSettings, proc: Path, /) -> Inspection: ...

    def enrol(
        self,
        plan: RedirectPlan,
        settings: PlanSettings,
        on_unsteered: OnUnsteered,
        replaces: RedirectPlan | None,
        /,
    ) -> Applied: ...

    def restore(
        self, plan: RedirectPlan, settings: PlanSettings, remembered: Unsteered, on_unsteered: OnUnsteered, /
    ) -> Applied: ...

    def drain(self, plan: RedirectPlan, /) -> None: ...

    def remove(self, plan: RedirectPlan, /) -> None: ...

    def count_steered(self, settings: PlanSettings, /) -> int: ...

    def look_after(self, remembered: Unsteered, settings: PlanSettings, /) -> LookedAfter: ...

    def compare(self, plan: RedirectPlan, form: Form, /) -> Found: ...

    def counters(self) -> tuple[RuleCounter, ...]: ...


class Effects:
    """The means that all pods share."""

    def __init__(
        self,
        settings: PlanSettings,
        on_unsteered: OnUnsteered,
        threads: NetnsThreads,
        zds: ZdsServer,
        objects: ObjectsServer,
        metrics: AgentMetrics,
        store: FdStore,
        watch: Watch,
        reports: PodReports,
        rules: Rules = inside,
        backend: str = "nft",
        proc: Path = Path("/proc"),
        budget: Budget | None = None,
    ) -> None:
        """`backend`: what `rules` are made of, as it is told. `proc`: the node's. `budget` None: for all pods."""
        self._budget = budget or Budget(MOST)
        self._proc = proc
        self.backend = backend
        self._rules = rules
        self._settings = settings
        self._on_unsteered = on_unsteered
        self._threads = threads
        self._zds = zds
        self._objects = objects
        self._metrics = metrics
        self._store = store
        self._watch = watch
        self._reports = reports
        self._provers = asyncio.Semaphore(PROVERS)
        self._precedence = Precedence()
        self._tidying = Tidying()

    async def perform(self, life: Life, effect: Effect) -> Event:
        """Never raises for what a pod, a proxy or the kernel does; the event tells."""
        if isinstance(effect, Inspect | Announce | Install | Heal):
            with self._precedence.first():
                event = await self._outcome(life, effect)
        else:
            event = await self._outcome(life, effect)
        if isinstance(event, NetnsLost | NetnsUnfit):
            self._watch.forget(key_of(life))
        elif isinstance(event, Refused) and isinstance(effect, Heal):
            self._reports.not_healed(life, event.reason)
        return event

    @property
    def problems(self) -> tuple[str, ...]:
        return (self._budget.problem,) if self._budget.problem else ()

    async def _outcome(self, life: Life, effect: Effect) -> Event:
        if isinstance(effect, Inspect) and (reason := self._budget.admit(life.pod.uid)):
            return Refused(reason)
        try:
            return await self._perform(life, effect)
        except _NetnsGone as error:
            return NetnsLost(str(error))
        except NetnsRefused as error:
            return NetnsUnfit(str(error)) if isinstance(effect, Inspect) else NetnsLost(str(error))
        except KernelRefused as error:
            return Refused(str(error))
        except OSError as error:
            return Refused(f"{type(effect).__name__.lower()}: {error.strerror or error}")
        except Exception as error:  # a fault of ours must not end the other pods' agent
            _log.exception("pod %s: %s failed", life.pod, type(effect).__name__)
            return Refused(f"{type(effect).__name__.lower()}: a fault of the agent: {error!r}")

    async def _perform(self, life: Life, effect: Effect) -> Event:
        match effect:
            case Withdraw():
                self._store.drop(life.pod.uid)
                if life.drained:
                    await self._last_answers(life)
                await self._zds.remove(life.pod.uid)
                return Withdrawn()
            case Inspect():
                inspection = await self._inside(life, self._rules.inspect, self._settings, self._proc)
                if inspection.netns_cookie:
                    self._store.expect(life.pod.uid, inspection.netns_cookie)
                return Inspected(inspection)
            case Announce():
                return await self._announce(life)
            case CountSteered():
                return SteeredLeft(await self._inside(life, self._rules.count_steered, self._settings))
            case _:
                with self._watch.ours(key_of(life)):
                    return await self._change(life, effect)

    async def _last_answers(self, life: Life) -> None:
        """What is still steered is led out: each answer from now on tells its client that it is the connection's last
        (RFC 9112, 9.6). Closed without that, a request would cross its connection's end."""
        await asyncio.sleep(_ACCEPTED_WITHIN_S)
        if await self._zds.remove(life.pod.uid, LAST_ANSWERS_S) == NoProxy():
            return
        over_s = time.monotonic() + LAST_ANSWERS_S
        with contextlib.suppress(_NetnsGone, NetnsRefused, KernelRefused, OSError):  # who acts there next is told
            while await self._inside(life, self._rules.count_steered, self._settings) and time.monotonic() < over_s:
                await asyncio.sleep(_LOOKED_AT_EVERY_S)

    async def _change(self, life: Life, effect: Install | Heal | Drain | Remove) -> Event:
        """What is watched changes with the rules, so that no change of ours is taken for somebody else's."""
        match effect:
            case Install(plan=plan, replaces=replaces):
                applied = await self._inside(
                    life, self._rules.enrol, plan, self._settings, self._on_unsteered, replaces
                )
                self._watched(life, plan, Form.STEERING)
                self._tidying.later()
                self._metrics.applied(applied.seconds)
                self._reports.installed(life, applied)
                if replaces is not None and applied.changed:
                    self._reports.rewished(life, replaces, plan, applied)
                return Installed()
            case Heal(plan=plan):
                known = self._reports.of(life).unsteered
                applied = await self._inside(life, self._rules.restore, plan, self._settings, known, self._on_unsteered)
                self._watched(life, plan, Form.STEERING)
                self._tidying.later()
                self._reports.healed(life, applied)
                return Healed(len(applied.slipped), applied.cut)
            case Drain(plan=plan):
                await self._inside(life, self._rules.drain, plan)
                self._watched(life, plan, Form.DRAIN)
                return Drained()
            case Remove(plan=plan):
                self._watch.forget(key_of(life))
                await self._inside(life, self._rules.remove, plan)
                self._reports.forget(life)
                return Removed()

    def _watched(self, life: Life, plan: RedirectPlan, form: Form) -> None:
        self._watch.watch(key_of(life), life.netns_path, life.netns_id, plan, form)

    async def _inside(self, life: Life, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _open(life) as netns:
            return await self._threads.run(netns, fn, *args, **kwargs)

    async def _announce(self, life: Life) -> Event:
        with _open(life) as netns:
            result = await self._zds.add(life.pod.uid, workload_info(life), netns.fd)
        return answer(result)

    # ── Proofs and counters ────────────────────────────────────────────────────────────────────────────────────────
    @property
    def proofs_wait(self) -> bool:
        """Nobody would answer: the proxy has no policy in force yet."""
        return self._objects.serving.waits

    async def prove(self, life: Life) -> Event:
        """The four proofs, once the proxy serves; and, while in there, counters, conntrack's table and the housekeeping
        of the connections outside the mesh."""
        if self.proofs_wait:
            await self._objects.serving.until(POLICY_WAIT_S)
            if not self._objects.connected:  # conntrack alone would take the queue of a listener for an answer
                return _untaken("the proxy went before it had its policy")
        async with self._provers:
            await self._precedence.give_way()
            known = self._reports.of(life).unsteered
            beside = functools.partial(self._rules.look_after, known, self._settings)
            plan = life.plan_in_force
            try:
                with _open(life) as netns:
                    proofs, found = await probe.prove_beside(
                        life.pod, netns, self._threads, self._objects, beside, plan=plan
                    )
            except (_NetnsGone, NetnsRefused) as error:
                return NetnsLost(str(error))
            except (KernelRefused, OSError) as error:
                return _untaken(str(error))
            except Exception as error:  # a fault of ours: told like any other failure, so that it is tried again
                _log.exception("pod %s: proof failed", life.pod)
                return _untaken(f"a fault of the agent: {error!r}")
        self._metrics.proofs(life.pod, proofs)
        self._looked_after(life, found)
        return ProofsTaken(proofs)

    def _looked_after(self, life: Life, found: LookedAfter) -> None:
        self._reports.unsteered(life, found.unsteered)
        self._reports.conntrack(life, found.table)
        for counter in found.forgotten:
            self._metrics.forgotten(life.pod, counter.rule_id, counter.packets)

    async def compare(self, life: Life, plan: RedirectPlan) -> Found:
        """What the namespace holds, beside the plan. Raises as `counters`."""
        form = Form.DRAIN if life.drained else Form.STEERING
        with open_netns(life.netns_path, life.netns_id) as netns:
            return await self._threads.run(netns, self._rules.compare, plan, form)

    async def counters(self, life: Life) -> tuple[RuleCounter, ...]:
        """Raises KernelRefused, NetnsRefused, OSError."""
        with open_netns(life.netns_path, life.netns_id) as netns:
            return await self._threads.run(netns, self._rules.counters)

    def close(self) -> None:
        self._tidying.cancel()

    def forget(self, life: Life, *, replaced: bool) -> None:
        """The life has ended. `replaced`: another one of the same pod goes on, and what is kept by uid is its."""
        self._watch.forget(key_of(life))
        self._reports.forget(life)
        if not replaced:
            self._store.drop(life.pod.uid)
            self._budget.release(life.pod.uid)


def _open(life: Life) -> OpenNetns:
    """Raises _NetnsGone, NetnsRefused, OSError."""
    try:
        return open_netns(life.netns_path, life.netns_id)
    except FileNotFoundError:
        raise _NetnsGone(f"{life.netns_path} is not there") from None


def answer(result: ZdsAcked | ZdsNacked | NoProxy) -> Event:
    """A proxy's answer as the life's event."""
    match result:
        case ZdsAcked():
            return Acked()
        case ZdsNacked(reason=reason):
            return Nacked(printable(reason))
        case NoProxy():
            return ProxyAbsent()


def _untaken(reason: str) -> ProofsTaken:
    failed = Proof(ProofStatus.FAILED, f"the proof could not be taken: {reason}")
    return ProofsTaken(Proofs(failed, failed, failed, failed))


def workload_info(life: Life) -> WorkloadInfo:
    return WorkloadInfo(life.pod.name, life.pod.namespace, life.pod.service_account)


def descriptor(life: Life) -> int | None:
    """A descriptor of the pod's namespace for a proxy's snapshot, which closes it; None when it cannot be opened."""
    try:
        with open_netns(life.netns_path, life.netns_id) as netns:
            return os.dup(netns.fd)
    except (OSError, NetnsRefused):
        return None
