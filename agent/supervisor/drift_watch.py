"""Watches that pods' namespaces hold what they are to hold, and tells when one does not: as soon as it is heard, and
within two seconds in any case. Deciding and healing are others' (agent.reconcile, agent.supervisor.effects)."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from agent.plan import PlanSettings, RedirectPlan
from agent.plan.drift import Form
from agent.pods import NetnsId
from agent.reconcile.life import Drifted
from agent.supervisor.drift_ledger import Command, Finding, Ledger
from agent.supervisor.drift_rounds import DriftRounds


class Looking(Protocol):
    """What a watch needs of `DriftRounds`."""

    def start(self) -> None: ...

    def send(self, command: Command) -> None: ...

    def close(self) -> None: ...


Tell = Callable[[Finding], None]
Ended = Callable[[BaseException], None]


class DriftWatch:
    """All methods from the event loop's thread. `drifted(uid, …)` is called on it, once for each drift until it is
    healed; `foreign(uid, chains)` when the list of other people's chains before ours has changed."""

    def __init__(
        self,
        settings: PlanSettings,
        drifted: Callable[[str, Drifted], None],
        foreign: Callable[[str, tuple[str, ...]], None],
        looking: Callable[[PlanSettings, Tell, Ended], Looking] = DriftRounds,
    ) -> None:
        self._drifted = drifted
        self._foreign = foreign
        self._ledger = Ledger()
        self._looking = looking(settings, self._found, self._ended)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Future[None] | None = None

    def watch(
        self, uid: str, netns_path: str, netns_id: NetnsId, plan: RedirectPlan, form: Form = Form.STEERING
    ) -> None:
        """From now on the namespace is to hold `plan` in this form; again for the same pod when that changes."""
        self._looking.send(self._ledger.watch(uid, netns_path, netns_id, plan, form))

    def forget(self, uid: str) -> None:
        """Whether or not the pod is watched."""
        self._send(self._ledger.forget(uid))

    @contextlib.contextmanager
    def ours(self, uid: str) -> Iterator[None]:
        """While the agent itself changes the namespace; `watch` or `forget` within it when the change is in force.

        Nothing that is seen meanwhile counts. Afterwards the namespace is compared at once with what it is to hold
        then: so a foreign change that raced ours is found all the same.
        """
        self._send(self._ledger.begin(uid))
        try:
            yield
        finally:
            self._send(self._ledger.end(uid))

    async def run(self) -> None:
        """Looks until cancelled. Raises what ended the looking."""
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.create_future()
        self._looking.start()
        await self._end

    def close(self) -> None:
        """Waits for the look that has begun. Closing twice is harmless."""
        self._loop = None
        self._looking.close()

    def _send(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self._looking.send(command)

    # ── On the looking thread ──────────────────────────────────────────────────────────────────────────────────────
    def _found(self, finding: Finding) -> None:
        self._call(self._judge, finding)

    def _ended(self, error: BaseException) -> None:
        self._call(self._fail, error)

    def _call(self, fn: Callable[..., None], what: Finding | BaseException) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed since
                loop.call_soon_threadsafe(fn, what)

    # ── On the event loop's again ──────────────────────────────────────────────────────────────────────────────────
    def _judge(self, finding: Finding) -> None:
        news = self._ledger.judge(finding)
        if news.foreign is not None:
            self._foreign(finding.uid, news.foreign)
        if news.drifted:
            self._drifted(finding.uid, Drifted(finding.changes, finding.by))

    def _fail(self, error: BaseException) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_exception(error)
