"""The node's policy, from its source to the workers that have it in force."""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from proxy.errors import printable
from proxy.model.snapshot import PolicySnapshot
from proxy.supervisor.object_stream import ObjectStream
from proxy.supervisor.policy_feed import PolicyFeed
from proxy.supervisor.policy_watch import EMPTY_POLICY, DirectoryObjects, PolicyWatch
from proxy.workerlink import PodIdentity

_log = logging.getLogger(__name__)


POLICY_NICE: Final = 10
"""Of the policy thread: on a busy node the workers, which share a cgroup with it, come first."""


def _step_back() -> None:
    """Nice is a thread's own in Linux (setpriority(2), bugs)."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), POLICY_NICE)


class NodePolicy:
    """`config_dir` is the source where it is given; else the agent's object stream, if the agent has one. `on_policy`
    is called with each new generation before workers are told.
    """

    def __init__(
        self,
        config_dir: Path | None,
        agent_connected: Callable[[], bool],
        on_policy: Callable[[PolicySnapshot], None],
    ) -> None:
        self._on_policy = on_policy
        # One thread for policy alone: a slow compile delays nothing else, and its parts need no lock.
        self._thread = ThreadPoolExecutor(1, "policy", _step_back)
        self.objects = ObjectStream(self._without_objects, agent_connected) if config_dir is None else None
        source = self.objects if config_dir is None else DirectoryObjects(config_dir)
        assert source is not None
        self.feed = PolicyFeed(self._thread)
        self._watch = PolicyWatch(source, self._thread, self._compiled)
        self.run = self._watch.run

    @property
    def current(self) -> PolicySnapshot | None:
        return self._watch.current

    @property
    def pods_required(self) -> bool:
        """Objects are streamed, in whatever order: a pod is served only once its own is known."""
        return self.objects is not None and self.objects.streamed

    def knows(self, pod: PodIdentity) -> bool:
        """False while connections of this pod wait for its object."""
        if not self.pods_required:
            return True
        return self.current is not None and (pod.namespace, pod.name) in self.current.pods

    def missing(self, pods: Iterable[PodIdentity]) -> list[str]:
        """What of policy is not there yet for these pods."""
        if self.objects is not None and self.current is None:
            return ["the agent has not told of all objects yet, nor that it has none"]
        waiting = [printable(f"{pod.namespace}/{pod.name}") for pod in pods if not self.knows(pod)]
        return [f"{len(waiting)} pods wait for their object, {waiting[0]} for one"] if waiting else []

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _compiled(self, policy: PolicySnapshot) -> None:
        self._on_policy(policy)
        self.feed.offer(policy, pods_required=self.pods_required)

    def _without_objects(self) -> None:
        if self.current is None:
            _log.info("no source of objects is configured: no policy applies")
            self._watch.adopt(EMPTY_POLICY)
