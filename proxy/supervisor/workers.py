"""Worker processes: started by exec, spoken to over a link, replaced when they end."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy.link import Link, LinkClosed, close_descriptors, link_pair
from proxy.supervisor.pulse import Pulse, Verdict
from proxy.telemetry.open_counts import OpenCounts, make_shared
from proxy.workerlink import FromWorker, Ping, Pong, ShareCounts, Stop, ToWorker

_log = logging.getLogger(__name__)

WORKER_COMMAND: Final = (sys.executable, "-m", "proxy.worker")

RESTART_PAUSE_S: Final = 0.05
RESTART_PAUSE_MAX_S: Final = 5.0
"""A worker that dies at once each time must not eat the node; a nacked pod is announced again every 5 s anyway."""
HEALTHY_AFTER_S: Final = 10.0
"""A worker that lived this long is replaced without a pause, whatever happened before."""
STOP_GRACE_S: Final = 2.0
"""Time beyond the drain that a worker has to end by itself before it is killed."""

DIED: Final = "died"
"""Why a worker was restarted that nobody had given up."""

_PR_SET_PDEATHSIG: Final = 1
"""include/uapi/linux/prctl.h"""
_prctl = ctypes.PyDLL(None).prctl


class Worker:
    """One place for a worker process, filled again whenever its process ends.

    `on_start` sends what a new process must know (it may call `send`), `on_message` takes what it says, `on_end` hears
    that a process ended; descriptors that come with a message are closed: a worker has none to give.

    `open_counts` is the running process's; `on_end` may still read it.

    `usable` tells whether pods may be placed here: from the start, and after a restart when the owner says so.
    `restarts` counts by reason: died, or a Verdict's value.
    """

    def __init__(
        self,
        index: int,
        on_start: Callable[["Worker"], None],
        on_message: Callable[["Worker", FromWorker], None],
        command: Sequence[str] = WORKER_COMMAND,
        on_end: Callable[["Worker"], None] = lambda worker: None,
    ) -> None:
        self.index = index
        self.restarts: Counter[str] = Counter()
        self.usable = False
        self.policy_in_force: int | None = None
        self.open_counts: OpenCounts | None = None
        self._on_start = on_start
        self._on_message = on_message
        self._on_end = on_end
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._pidfd = -1
        self._started_s = 0.0
        self._pulse = Pulse(0.0)
        self._given_up: Verdict | None = None
        self._pause_s = 0.0
        self._restart: asyncio.TimerHandle | None = None
        self._stopping = False
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Raises OSError when the process cannot be made."""
        self._started_s = time.monotonic()
        shared = make_shared()
        try:
            self._start(OpenCounts(shared), shared)
        finally:
            os.close(shared)
        _log.info("worker %d started, pid %d", self.index, self.pid or 0)
        self._on_start(self)

    def _start(self, counts: OpenCounts, shared: int) -> None:
        link, theirs = link_pair()
        try:
            self._process = subprocess.Popen(
                [*self._command, "--link-fd", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # One call each, nothing that takes a lock: safe between fork and exec even beside other threads.
                preexec_fn=_tie_to_supervisor,  # noqa: PLW1509
            )
        except BaseException:
            link.close()
            raise
        finally:
            theirs.close()
        self._pulse = Pulse(self._started_s)
        self._given_up = None
        self.usable = not self.restarts
        self._link = link
        self.open_counts = counts
        self._pidfd = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(link, self._readable)
        loop.add_reader(self._pidfd, self._process_ended)
        self.send(ShareCounts(), (shared,))

    def send(self, message: ToWorker, fds: Sequence[int] = ()) -> None:
        """To the running process, in order. Without one nothing is lost: `on_start` tells the next one everything."""
        if self._link is None:
            return
        try:
            self._link.send(message, fds)
        except LinkClosed:
            self._abandon_link()
            return
        if self._link.wants_write:
            asyncio.get_running_loop().add_writer(self._link, self._writable)

    async def stop(self, drain_s: float) -> None:
        """Let the process end by itself within `drain_s`, then kill it; returns when it is gone."""
        self._stopping = True
        if self._restart is not None:
            self._restart.cancel()
        if self._process is None:
            return
        self.send(Stop(drain_s))
        try:
            async with asyncio.timeout(drain_s + STOP_GRACE_S):
                await self._ended.wait()
        except TimeoutError:
            _log.warning("worker %d did not stop in time: killed", self.index)
            self.kill()
            await self._ended.wait()

    def beat(self, now_s: float) -> None:
        """Called each PING_EVERY_S: a process that is stopped or says nothing any more is killed, and so replaced."""
        if self._process is None or self._stopping or self._given_up is not None:
            return
        self._given_up = self._pulse.judge(now_s, process_state(self._process.pid))
        if self._given_up is None:
            self.send(Ping(self._pulse.ping(now_s)))
            return
        _log.error("worker %d is %s: killed, its pods move on", self.index, self._given_up.value)
        self.kill()

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _readable(self) -> None:
        assert self._link is not None
        try:
            messages = self._link.receive()
        except LinkClosed as closed:
            if self._stopping:
                # It ends as asked: nothing more to say, and it must be left to end by itself.
                self._drop_link()
                return
            _log.warning("worker %d: %s", self.index, closed)
            self._abandon_link()
            return
        self._hear(messages)

    def _hear(self, messages: list[tuple[ToWorker | FromWorker, tuple[int, ...]]]) -> None:
        for message, descriptors in messages:
            close_descriptors(descriptors)
            if isinstance(message, Pong):
                self._pulse.pong(message.sequence, time.monotonic())
            elif isinstance(message, FromWorker):
                self._pulse.spoke()
                self._on_message(self, message)

    def _writable(self) -> None:
        assert self._link is not None
        try:
            self._link.flush()
        except LinkClosed:
            self._abandon_link()
            return
        if not self._link.wants_write:
            asyncio.get_running_loop().remove_writer(self._link)

    def _abandon_link(self) -> None:
        """A process without a link cannot be told anything any more: it ends, and another takes its place."""
        self._drop_link()
        self.kill()

    def _drop_link(self) -> None:
        if self._link is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._link)
            loop.remove_writer(self._link)
            self._link.close()
            self._link = None

    def _process_ended(self) -> None:
        assert self._process is not None
        self._drain_last_words()
        status = self._process.wait()
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._drop_link()
        self._process = None
        self.policy_in_force = None
        self.usable = False
        self._on_end(self)
        self.open_counts = None
        if self._stopping:
            self._ended.set()
            return
        self.restarts[DIED if self._given_up is None else self._given_up.value] += 1
        _log.error("worker %d ended unasked (%s): its connections are cut, a new one starts", self.index, _how(status))
        self._start_again()

    def _drain_last_words(self) -> None:
        """What the process said before it ended, its last telemetry for one."""
        if self._link is not None:
            with suppress(LinkClosed):
                self._hear(self._link.receive())

    def _start_again(self) -> None:
        if time.monotonic() - self._started_s >= HEALTHY_AFTER_S:
            self._pause_s = 0.0
        self._restart = asyncio.get_running_loop().call_later(self._pause_s, self._try_start)
        self._pause_s = min(max(self._pause_s * 2, RESTART_PAUSE_S), RESTART_PAUSE_MAX_S)

    def _try_start(self) -> None:
        try:
            self.start()
        except OSError as error:
            _log.error("worker %d cannot be started: %s", self.index, error)
            self._start_again()


def process_state(pid: int) -> str:
    """Its letter in proc(5) /proc/PID/stat; "" when there is none such."""
    try:
        # After the name, which may hold anything, also parentheses.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1].decode()
    except OSError:
        return ""


def _tie_to_supervisor() -> None:
    # A worker must not outlive its supervisor: nobody could tell it to leave a pod. And Ctrl-C, which the terminal
    # sends to both, must reach the supervisor only: it drains the workers.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL.value, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _how(status: int) -> str:
    return f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
