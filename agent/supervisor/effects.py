"""Performs a life's actions and says how each ended, as an event. Nothing is decided here."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from agent.handoff.objects import ObjectsServer
from agent.handoff.zds import Acked as ZdsAcked
from agent.handoff.zds import Nacked as ZdsNacked
from agent.handoff.zds import NoProxy, ZdsServer
from agent.kernel import probe
from agent.kernel.netns import NetnsRefused, NetnsThreads, OpenNetns, open_netns
from agent.kernel.nft import RuleCounter
from agent.kernel.refused import KernelRefused
from agent.memory import Tidying
from agent.metrics import AgentMetrics
from agent.plan import FlowKey, PlanSettings
from agent.pods import Proof, Proofs, ProofStatus
from agent.printable import printable
from agent.reconcile.life import (
    Acked,
    Announce,
    CountSteered,
    Drain,
    Drained,
    Event,
    Inspect,
    Inspected,
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
from proxy.api.zds import WorkloadInfo

_log: Final = logging.getLogger("headgate.effects")
P = ParamSpec("P")
T = TypeVar("T")

Effect = Inspect | Announce | Install | Drain | CountSteered | Remove | Withdraw

PROVERS: Final = 16
"""Pods proved at once: each proof has one second, and 250 at once would share one core (DESIGN 5: ≤ 3 % of it)."""


class Effects:
    """The means that all pods share."""

    def __init__(
        self,
        settings: PlanSettings,
        threads: NetnsThreads,
        zds: ZdsServer,
        objects: ObjectsServer,
        metrics: AgentMetrics,
    ) -> None:
        self._settings = settings
        self._threads = threads
        self._zds = zds
        self._objects = objects
        self._metrics = metrics
        self._provers = asyncio.Semaphore(PROVERS)
        self._tidying = Tidying()
        self._grandfathered: dict[str, frozenset[FlowKey]] = {}

    async def perform(self, life: Life, effect: Effect) -> Event:
        """Never raises for what a pod, a proxy or the kernel does; the event tells."""
        try:
            return await self._perform(life, effect)
        except FileNotFoundError:
            return NetnsLost(f"{life.netns_path} is not there")
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
                await self._zds.remove(life.pod.uid)
                return Withdrawn()
            case Inspect():
                return Inspected(await self._inside(life, inside.inspect, self._settings))
            case Announce():
                return await self._announce(life)
            case Install(plan=plan):
                applied = await self._inside(life, inside.install, plan, self._settings)
                self._metrics.applied(applied.seconds)
                self._tidying.later()
                self._remember(life, applied.grandfathered)
                return Installed()
            case Drain(plan=plan):
                await self._inside(life, inside.drain, plan)
                return Drained()
            case CountSteered():
                return SteeredLeft(await self._inside(life, inside.count_steered, self._settings))
            case Remove(plan=plan):
                await self._inside(life, inside.remove, plan)
                self._grandfathered.pop(life.pod.uid, None)
                return Removed()

    async def _inside(self, life: Life, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with open_netns(life.netns_path, life.netns_id) as netns:
            return await self._threads.run(netns, fn, *args, **kwargs)

    async def _announce(self, life: Life) -> Event:
        with open_netns(life.netns_path, life.netns_id) as netns:
            result = await self._zds.add(life.pod.uid, workload_info(life), netns.fd)
        return answer(result)

    # ── Proofs and counters ────────────────────────────────────────────────────────────────────────────────────────
    async def prove(self, life: Life) -> Event:
        """The four proofs; and, while in there, counters and the housekeeping of the grandfathered connections."""
        async with self._provers:
            try:
                with open_netns(life.netns_path, life.netns_id) as netns:
                    proofs = await probe.prove(life.pod, netns, self._threads, self._objects)
                    self._metrics.proofs(life.pod, proofs)
                    await self._look_after(life, netns)
                return ProofsTaken(proofs)
            except (FileNotFoundError, NetnsRefused) as error:
                return NetnsLost(str(error))
            except (KernelRefused, OSError) as error:
                return _untaken(str(error))
            except Exception as error:  # a fault of ours: told like any other failure, so that it is tried again
                _log.exception("pod %s: proof failed", life.pod)
                return _untaken(f"a fault of the agent: {error!r}")

    async def _look_after(self, life: Life, netns: OpenNetns) -> None:
        remembered = self._grandfathered.get(life.pod.uid)
        if remembered:
            living = await self._threads.run(netns, inside.forget_ended, remembered, self._settings)
            self._remember(life, living)
        for counter in await self._threads.run(netns, inside.forgotten):
            self._metrics.forgotten(life.pod, counter.rule_id, counter.packets)

    async def counters(self, life: Life) -> tuple[RuleCounter, ...]:
        """Raises KernelRefused, NetnsRefused, OSError."""
        return await self._inside(life, inside.counters)

    def grandfathered(self, uid: str) -> int:
        """Connections older than the rules, as last looked at."""
        return len(self._grandfathered.get(uid, ()))

    def close(self) -> None:
        self._tidying.cancel()

    def forget(self, uid: str) -> None:
        self._grandfathered.pop(uid, None)

    def _remember(self, life: Life, grandfathered: frozenset[FlowKey]) -> None:
        self._grandfathered[life.pod.uid] = grandfathered
        self._metrics.unsteered(life.pod, "grandfathered", len(grandfathered))


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
