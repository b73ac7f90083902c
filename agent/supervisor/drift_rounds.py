"""The thread that looks at all pods' namespaces: it listens, goes its rounds, and compares where something changed.

A thread of its own, because it enters 250 namespaces a second and each call takes some microseconds: through the event
loop and its executor the way there would cost ten times the work. It holds nothing of any pod between two looks.
"""

import contextlib
import errno
import logging
import math
import os
import select
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from agent.kernel import glance, held, iproute, nsid
from agent.kernel.hearing import UNSEEN, Heard, Hearing, who
from agent.kernel.held import Expectation, Found
from agent.kernel.netns import NetnsRefused, Rounds, open_netns
from agent.kernel.refused import KernelRefused
from agent.plan import PlanSettings, RedirectPlan
from agent.plan.drift import Form, is_of_routes
from agent.printable import printable
from agent.supervisor.drift_ledger import Command, Finding, Forget, Hold, Release, Watch

_log: Final = logging.getLogger("headgate.drift")

_ROUND_S: Final = 1.5
"""DESIGN 5: found within 2 s also when the kernel's message was lost. Of the agent's work at 250 idle pods, rounds of a
second were 45 % (perf, 40 s; kernel and Python half each); half a second is left for a comparison."""
_STEPS: Final = 2
"""A round's pods are visited in so many steps: 125 pods take 4 ms. With ten steps a visit costs a third more, because
each begins with cold caches."""
_ROUTED_EVERY: Final = 7
"""Rounds. Asking for the return path costs twice what the generation does (0.8 % of a core against 0.4 %, 250 pods); it
is heard, and the kernel tells when it could not say something: then, and while nothing can be heard at all, it is asked
for in every round. This is for what nobody thought of."""
_COMPARED_EVERY: Final = 40
"""Rounds. DESIGN 5: once a minute, whether or not anything seems to have changed."""
_TOGETHER_EVERY: Final = 10
"""Rounds. Pods are at different places of their minute, yet some forty of 250 are compared one after another: each then
takes half of what it takes alone, with cold caches."""
_PAUSE_S: Final = 0.05
"""Between two comparisons of one pod: somebody who replaces rules all the time shall not busy the agent."""
_SETTLE_S: Final = 0.5
"""Between a change of ours and the look at what came of it, unless somebody else is heard: 250 pods that are installed
at once shall not wait for 250 comparisons. Well within the two seconds."""
_LOOPBACK_S: Final = 1.0
"""While lo is down, a route through it is missing: libcni undoes lo before it calls any plugin's DEL, ours comes some
20 ms later (containerd 1.6), and nothing has drifted. Who takes lo down for good is told still within the two seconds:
only what was heard of may wait, for a round finds the rest up to 1.5 s late."""
_LISTEN_EVERY_S: Final = 0.02
"""Messages come in crowds, one for each change; read together they wake the thread once."""
_COMPLAIN_EVERY_S: Final = 60.0
_GONE: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.ENOTDIR})
"""What opening or entering says of a name whose namespace was deleted (EINVAL: the file is there, nothing bound)."""
_MOST_NAMED: Final = 3
"""Who changed something, named in one finding."""


class Comparing(Protocol):
    """How a backend's rules are looked at. `generation` changes with any rule, where the kernel has such a number; what
    `expectation` makes of a plan is for `compare` alone. Called on the thread, in the pod's namespace but for
    `expectation`. Raise KernelRefused or OSError."""

    def generation(self) -> bytes: ...

    def expectation(self, plan: RedirectPlan, form: Form) -> Any: ...

    def compare(self, expected: Any, *, unchanged: bool) -> Found: ...


class NftComparing:
    def generation(self) -> bytes:
        return glance.generation()

    def expectation(self, plan: RedirectPlan, form: Form) -> Expectation:
        return held.expectation(plan, form)

    def compare(self, expected: Expectation, *, unchanged: bool) -> Found:
        return held.compare(expected, unchanged=unchanged)


@dataclass(slots=True)
class _Pod:
    watch: Watch
    epoch: int
    held: bool
    beat: int  # rounds
    nsid: int | None = None
    generation: bytes = b""
    routed: bytes = b""
    expected: Any = None  # of Comparing; None: not made yet
    is_well: bool = False  # as of `generation`, and of this expectation
    looked_s: float = -math.inf
    not_before_s: float = 0.0
    said: tuple[int, tuple[str, ...], tuple[str, ...]] | None = None
    routine: bool = False
    is_heard: bool = False  # since the last look that did not wait
    waits_until_s: float = -math.inf  # for its lo, which is down
    by: list[str] = field(default_factory=list)


class DriftRounds:
    """`tell` and `ended` are called on the thread; `send` and `close` may be called from any other."""

    def __init__(
        self,
        settings: PlanSettings,
        tell: Callable[[Finding], None],
        ended: Callable[[BaseException], None],
        comparing: Comparing | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        """`ended` is told of what ended the thread, unless `close` did. `comparing` None: nftables. `proc`: the node's,
        for the names of who changes rules. Raises OSError (EMFILE)."""
        self._proc = proc
        self._comparing = comparing or NftComparing()
        self._settings = settings
        self._tell = tell
        self._ended = ended
        self._commands: deque[Command | None] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._main, name="drift", daemon=True)

    def start(self) -> None:
        """From a thread that is in the agent's own namespace: the new one begins there."""
        self._thread.start()

    def send(self, command: Command) -> None:
        """Harmless after the end."""
        if self._wake >= 0:
            self._commands.append(command)
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Ends the thread after the look that it is at. Closing twice is harmless."""
        if self._wake < 0:
            return
        self._commands.append(None)
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        wake, self._wake = self._wake, -1
        os.close(wake)

    def _main(self) -> None:
        try:
            with contextlib.closing(
                _Thread(self._settings, self._comparing, self._tell, self._commands, self._wake, self._proc)
            ) as thread:
                thread.run()
        except BaseException as error:
            self._ended(error)


class _Thread:
    """What belongs to the thread alone. Made and used on it."""

    def __init__(
        self,
        settings: PlanSettings,
        comparing: Comparing,
        tell: Callable[[Finding], None],
        commands: deque[Command | None],
        wake: int,
        proc: Path,
    ) -> None:
        self._proc = proc
        self._comparing = comparing
        self._tell = tell
        self._commands = commands
        self._wake = wake
        self._routed = glance.Routed(settings.return_path)
        self._rounds = Rounds()
        self._hearing = _hearing(settings.return_path.table)  # last: nothing that can fail leaves it open
        self._pods: dict[str, _Pod] = {}
        self._by_nsid: dict[int, _Pod] = {}
        self._due: dict[str, _Pod] = {}
        self._order: list[_Pod] = []
        self._place = 0
        self._owed = 0  # visits that ask for the return path too, because messages were lost
        self._complained_s = -_COMPLAIN_EVERY_S

    def close(self) -> None:
        self._rounds.close()
        if self._hearing is not None:
            self._hearing.close()

    def run(self) -> None:
        """Until told to end."""
        deaf, listening = select.poll(), select.poll()
        for poller in (deaf, listening):
            poller.register(self._wake, select.POLLIN)
        for fd in self._hearing.filenos() if self._hearing is not None else ():
            listening.register(fd, select.POLLIN)
        next_step_s = deaf_until_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            is_deaf = now_s < deaf_until_s
            until_s = self._next(next_step_s, deaf_until_s if is_deaf else math.inf)
            ready = {fd for fd, _ in (deaf if is_deaf else listening).poll(wait_ms(until_s - now_s))}
            if self._wake in ready:
                os.eventfd_read(self._wake)
                if not self._obey():
                    return
            if ready - {self._wake}:
                self._hear()
                deaf_until_s = time.monotonic() + _LISTEN_EVERY_S
            now_s = time.monotonic()
            if self._order and now_s >= next_step_s:
                next_step_s = now_s + self._step()
            self._compare_due(now_s)

    def _next(self, step_s: float, listen_s: float) -> float:
        due = (pod.not_before_s for pod in self._due.values() if not pod.held)
        return min(step_s if self._order else math.inf, listen_s, min(due, default=math.inf))

    # ── What is said ───────────────────────────────────────────────────────────────────────────────────────────────
    def _obey(self) -> bool:
        """False: the end."""
        while self._commands:
            match self._commands.popleft():
                case None:
                    return False
                case Watch() as watch:
                    self._watch(watch)
                case Forget(uid=uid):
                    self._forget(uid)
                case Hold(uid=uid):
                    self._pods[uid].held = True
                case Release(uid=uid, epoch=epoch):
                    pod = self._pods[uid]
                    pod.held, pod.epoch, pod.not_before_s = False, epoch, time.monotonic() + _SETTLE_S
                    self._due[uid] = pod
        return True

    def _watch(self, watch: Watch) -> None:
        pod = self._pods.get(watch.uid)
        if pod is not None and pod.watch.netns_id == watch.netns_id:
            pod.watch, pod.epoch, pod.held, pod.expected = watch, watch.epoch, watch.held, None
            pod.is_well = False
        else:
            self._forget(watch.uid)
            beat = zlib.crc32(watch.uid.encode()) * _TOGETHER_EVERY % _COMPARED_EVERY
            pod = self._pods[watch.uid] = _Pod(watch, watch.epoch, watch.held, beat)
            self._order.append(pod)
            try:
                self._number(pod)  # now, not with the first look: what is done until then is heard
            except (NetnsRefused, OSError) as error:
                self._complain(pod, error)
        self._due[watch.uid] = pod

    def _forget(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        self._due.pop(uid, None)
        self._order.remove(pod)
        if pod.nsid is not None and self._by_nsid.get(pod.nsid) is pod:
            del self._by_nsid[pod.nsid]

    # ── What is heard ──────────────────────────────────────────────────────────────────────────────────────────────
    def _hear(self) -> None:
        if self._hearing is None:
            return
        heard, lost = self._hearing.read()
        for item in dict.fromkeys(heard):  # somebody who changes a hundred things at once is one
            pod = self._by_nsid.get(item.nsid)
            if pod is not None:
                self._note(pod, item)
        if lost:
            self._owed = len(self._order)

    def _note(self, pod: _Pod, heard: Heard) -> None:
        self._due[pod.watch.uid] = pod
        pod.is_heard = True
        name = who(heard, pod.watch.netns_id, self._proc)
        if not name:
            return
        pod.not_before_s = min(pod.not_before_s, pod.looked_s + _PAUSE_S)
        if name not in pod.by and len(pod.by) < _MOST_NAMED:
            pod.by.append(name)

    # ── The rounds ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _step(self) -> float:
        """Visits the next pods; seconds until those that follow."""
        steps = min(_STEPS, len(self._order))
        for _ in range(-(-len(self._order) // steps)):
            self._place = (self._place + 1) % len(self._order)
            pod = self._order[self._place]
            pod.beat += 1
            if pod.beat % _COMPARED_EVERY == 0:
                pod.routine = True
                self._due[pod.watch.uid] = pod
            elif not pod.held and pod.watch.uid not in self._due:
                self._visit(pod)
        self._rounds.home()
        return _ROUND_S / steps

    def _visit(self, pod: _Pod) -> None:
        """Leaves the thread in the pod's namespace: the next visit goes on from there."""
        routed = pod.routed
        try:
            self._rounds.enter(pod.watch.netns_path)
            generation = self._comparing.generation()
            if self._owed > 0 or self._hearing is None or pod.beat % _ROUTED_EVERY == 0:
                self._owed -= 1
                routed = self._routed.read()
        except OSError as error:
            self._complain(pod, error)
            return
        if generation != pod.generation or routed != pod.routed:
            self._due[pod.watch.uid] = pod

    def _compare_due(self, now_s: float) -> None:
        for pod in [pod for pod in self._due.values() if not pod.held and pod.not_before_s <= now_s]:
            del self._due[pod.watch.uid]
            try:
                self._compare(pod)
            except (KernelRefused, NetnsRefused, OSError) as error:
                pod.generation, pod.is_well = b"", False  # so that the next visit makes it due again
                self._complain(pod, error)
            pod.looked_s = time.monotonic()
            pod.not_before_s = max(pod.looked_s + _PAUSE_S, pod.waits_until_s)

    def _compare(self, pod: _Pod) -> None:
        watch = pod.watch
        if pod.expected is None:
            pod.expected = self._comparing.expectation(watch.plan, watch.form)
        if pod.nsid is None:
            self._number(pod)
        try:
            self._rounds.enter(watch.netns_path, watch.netns_id)
            # Before what is compared: a change that comes in between makes the next visit find another number.
            generation = self._comparing.generation()
            unchanged = pod.is_well and generation == pod.generation
            pod.generation, pod.routed = generation, self._routed.read()
            found = self._comparing.compare(pod.expected, unchanged=unchanged)
            pod.is_well = not found.changes
            of_routes = bool(found.changes) and is_of_routes(watch.plan.return_path, found.changes)
            is_down = of_routes and not iproute.loopback_is_up()
        finally:
            self._rounds.home()
        if found.changes:
            self._hear()  # a look can come before the message that says who it was
        if is_down and self._waits(pod):
            self._due[watch.uid] = pod
            return
        pod.waits_until_s = -math.inf
        routine, pod.routine = pod.routine, False
        seen, pod.by, pod.is_heard = ", ".join(pod.by) or UNSEEN, [], False
        said, pod.said = pod.said, (pod.epoch, found.changes, found.foreign)
        if found.changes or pod.said != said:  # each minute 250 pods are well, and nobody need wake for that
            self._tell(Finding(watch.uid, pod.epoch, found.changes, seen, found.foreign, routine))

    def _waits(self, pod: _Pod) -> bool:
        """Of one whose lo is down, and that lacks nothing but routes: whether this is looked at again before it is
        told."""
        now_s, until_s = time.monotonic(), pod.waits_until_s
        if until_s == -math.inf:
            until_s = now_s + _LOOPBACK_S
        pod.waits_until_s = until_s if pod.is_heard and now_s < until_s else -math.inf
        return pod.waits_until_s > -math.inf

    def _number(self, pod: _Pod) -> None:
        with open_netns(pod.watch.netns_path, pod.watch.netns_id) as netns:
            pod.nsid = nsid.number_of(netns.fd)
        self._by_nsid[pod.nsid] = pod

    def _complain(self, pod: _Pod, error: Exception) -> None:
        """A namespace that is gone, or another by now, is no news here: the source tells."""
        if isinstance(error, NetnsRefused) or (isinstance(error, OSError) and error.errno in _GONE):
            return
        now_s = time.monotonic()
        if now_s - self._complained_s >= _COMPLAIN_EVERY_S:
            self._complained_s = now_s
            _log.warning("drift cannot be looked for in pod %s: %s", printable(pod.watch.uid), printable(str(error)))


def wait_ms(wait_s: float) -> int | None:
    """For poll(2), never short of the time; what is long due (-inf too) is not waited for. None: nothing is due."""
    return None if wait_s == math.inf else math.ceil(max(0.0, wait_s) * 1000)


def _hearing(table: int) -> Hearing | None:
    """None when the kernel refuses: then all is found by looking, within a second or two."""
    try:
        return Hearing(table)
    except OSError as error:
        _log.warning("changes of rules are not heard, only looked for: %s", error.strerror or error)
        return None
