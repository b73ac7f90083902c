"""Keeps compiled policy in step with its source and tells whoever asked."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from proxy.config.compile import compile_policy
from proxy.config.directory import ObjectDirectory
from proxy.config.text import render_rejection
from proxy.model.snapshot import PolicySnapshot

_log = logging.getLogger(__name__)

POLL_S: Final = 0.2
"""A ConfigMap reaches the node within a minute of its change (kubelet's sync period); what a person edits should seem
immediate."""

EMPTY_POLICY: Final = PolicySnapshot(1, {}, {}, {}, {}, ())
"""In force where no source of objects is configured."""


class PolicyWatch:
    """Reads and compiles on `executor`'s thread, so that a thousand Services never hold up the event loop.

    `on_policy` runs on the loop for each new generation. What cannot be read or understood keeps its last good version
    and is listed in `current.rejections`.
    """

    def __init__(self, directory: Path | None, executor: Executor, on_policy: Callable[[PolicySnapshot], None]) -> None:
        self._directory = ObjectDirectory(directory) if directory is not None else None
        self._executor = executor
        self._on_policy = on_policy
        self._read = False
        self._problem = ""
        self.current: PolicySnapshot | None = None

    async def run(self) -> None:
        if self._directory is None:
            self._adopt(EMPTY_POLICY)
            return
        loop = asyncio.get_running_loop()
        while True:
            try:
                compiled = await loop.run_in_executor(self._executor, self._compile_if_changed, self._directory)
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
                self._adopt(compiled)
            await asyncio.sleep(POLL_S)

    def _compile_if_changed(self, directory: ObjectDirectory) -> PolicySnapshot | None:
        # Marked as read before reading: what cannot be compiled is tried again when it changes, not each time.
        if self._read and not directory.changed():
            return None
        self._read = True
        return compile_policy(directory.read(), self.current)

    def _adopt(self, compiled: PolicySnapshot) -> None:
        before = frozenset(self.current.rejections) if self.current is not None else frozenset()
        self.current = compiled
        _log.info("policy generation %d: %d service ports, %d pods", *_sizes(compiled))
        for rejection in compiled.rejections:
            if rejection not in before:
                _log.warning("policy object rejected: %s", render_rejection(rejection))
        self._on_policy(compiled)


def _sizes(policy: PolicySnapshot) -> tuple[int, int, int]:
    return policy.generation, len(policy.services), len(policy.pods)
