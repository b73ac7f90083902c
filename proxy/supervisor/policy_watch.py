"""Keeps compiled policy in step with its source and tells whoever asked."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Protocol

from proxy.config.compile import PolicyCompiler
from proxy.config.directory import ObjectDirectory
from proxy.config.objects import ObjectSet
from proxy.config.text import render_rejection
from proxy.model.snapshot import PolicySnapshot
from proxy.supervisor import collecting

_log = logging.getLogger(__name__)

POLL_S: Final = 0.2
"""A ConfigMap reaches the node within a minute of its change (kubelet's sync period); what a person edits should seem
immediate."""

REST: Final = 4
"""How many times as long as it worked policy rests: whatever changes how often, it takes a fifth of a core at most, and
what comes meanwhile is compiled together. With 1,000 Services of 20 endpoints a change is in force within 0.1 s."""
MAX_REST_S: Final = 1.0

EMPTY_POLICY: Final = PolicySnapshot(1, {}, {}, {}, {}, ())
"""In force where no source of objects is configured."""


class Objects(Protocol):
    """A source of objects, asked on the policy thread."""

    def next(self) -> ObjectSet | None:
        """What is in force now; None while that is not known, or when it is the same as before. Raises OSError when it
        cannot be known for now."""
        ...

    async def wait(self) -> None:
        """On the event loop: until it is worth asking again."""
        ...


class DirectoryObjects:
    """The objects of a directory of YAML."""

    def __init__(self, path: Path) -> None:
        self._directory = ObjectDirectory(path)
        self._read = False

    def next(self) -> ObjectSet | None:
        # Marked as read before reading: what cannot be compiled is tried again when it changes, not each time.
        if self._read and not self._directory.changed():
            return None
        self._read = True
        return self._directory.read()

    async def wait(self) -> None:
        await asyncio.sleep(POLL_S)


class PolicyWatch:
    """Reads and compiles on `executor`'s thread, so that a thousand Services never hold up the event loop.

    `on_policy` runs on the loop for each new generation. What cannot be read or understood keeps its last good version
    and is listed in `current.rejections`.
    """

    def __init__(self, source: Objects, executor: Executor, on_policy: Callable[[PolicySnapshot], None]) -> None:
        self._source = source
        self._executor = executor
        self._on_policy = on_policy
        self._compiler: PolicyCompiler | None = None
        self._problem = ""
        self._worked_s = 0.0
        self._rest_s = 0.0
        self.current: PolicySnapshot | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        if self.current is None:
            collecting.begin_loading()
        while True:
            try:
                compiled = await loop.run_in_executor(self._executor, self._compile_if_changed)
            except OSError as error:
                # The directory could never be listed: no policy yet, and the proxy does not become ready without one.
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error("no policy: %s; trying again", error)
                compiled = None
            except Exception:
                # A fault of ours that some object provokes must not end the proxy: pods live on the last good policy.
                _log.exception(
                    "policy cannot be compiled; generation %s stays", self.current and self.current.generation
                )
                compiled = None
            if compiled is not None and compiled is not self.current:
                self.adopt(compiled)
            await asyncio.sleep(self._rest_s)
            await self._source.wait()

    def _compile_if_changed(self) -> PolicySnapshot | None:
        objects = self._source.next()
        if objects is None:
            self._rest_s = 0.0
            return None
        try:
            return self._compile(objects)
        finally:
            # All that this thread has done since: deltas for workers too.
            before_s, self._worked_s = self._worked_s, time.thread_time()
            self._rest_s = min(REST * (self._worked_s - before_s), MAX_REST_S)

    def _compile(self, objects: ObjectSet) -> PolicySnapshot:
        if self._compiler is None:
            self._compiler = PolicyCompiler(self.current)
        try:
            return self._compiler.compile(objects)
        except BaseException:
            self._compiler = None  # it may be between two sets of objects: the next compile begins afresh
            raise

    def adopt(self, compiled: PolicySnapshot) -> None:
        """From now on this is the policy."""
        before = frozenset(self.current.rejections) if self.current is not None else frozenset()
        if self.current is None:
            collecting.loaded()
        self.current = compiled
        _log.info("policy generation %d: %d service ports, %d pods", *_sizes(compiled))
        for rejection in compiled.rejections:
            if rejection not in before:
                _log.warning("policy object rejected: %s", render_rejection(rejection))
        self._on_policy(compiled)


def _sizes(policy: PolicySnapshot) -> tuple[int, int, int]:
    return policy.generation, len(policy.services), len(policy.pods)
