"""Whether traffic may be led here, what is missing for it, and when that changes."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from proxy.supervisor.node_policy import NodePolicy
from proxy.supervisor.pods import Pods
from proxy.supervisor.workers import Worker

_log = logging.getLogger(__name__)


class Readiness:
    """`note` is called after whatever may change the answer; `pods_missing` says what keeps the pods from being known,
    "" when they are. `predecessor` is the admin socket of the proxy that still has the ports, None without one.
    """

    def __init__(
        self,
        pods_missing: Callable[[], str],
        policy: NodePolicy,
        pods: Pods,
        workers: list[Worker],
        predecessor: Path | None,
    ) -> None:
        self._pods_missing = pods_missing
        self._policy = policy
        self._pods = pods
        self._workers = workers
        self._was_fit = False
        self._became_fit = asyncio.Event()
        self.policy_in_force = asyncio.Event()
        """Every worker that pods are placed at has had one: from then on connections are answered."""
        self._said_ready = False
        self.predecessor = predecessor
        self.ending = False

    def unready(self) -> list[str]:
        """What is missing before traffic may be led here; empty when ready."""
        missing = self.unfit()
        if self.predecessor is not None:
            missing.append(f"the proxy on {self.predecessor} has not handed over yet")
        return missing

    def unfit(self) -> list[str]:
        """What is missing before this proxy could serve."""
        missing = []
        if self.ending:
            missing.append("the proxy is ending")
        if pods_missing := self._pods_missing():
            missing.append(pods_missing)
        # Later pods come one by one, and only their own connections wait for their object.
        missing += self._policy.missing(() if self._was_fit else (pod.identity for pod in self._pods.served))
        if not self._was_fit and (refused := self._refused()):
            missing.append(refused)
        if late := self._late():
            missing.append(f"no policy in force in worker {', '.join(late)} yet")
        # Here, where it is found out, whoever asked: what was answered once must not be taken back by the next pod.
        self._was_fit = self._was_fit or not missing
        return missing

    def _late(self) -> list[str]:
        """Workers that are to serve, and cannot decide anything yet."""
        # A worker that is being replaced has no pods: it takes them back when it can serve them.
        placed = [worker for worker in self._workers if worker.usable] or self._workers
        return [str(worker.index) for worker in placed if worker.policy_in_force is None]

    def _refused(self) -> str:
        """Why none of the agent's pods can be served: a proxy that may not do what it must is not to take the place of
        one that may. Where some are served, the others may be the cause themselves."""
        forbidden = [pod for pod in self._pods.pending if pod.forbidden]
        if not forbidden or self._pods.served:
            return ""
        return f"none of {len(forbidden)} pods can be served: {forbidden[0].reason}"

    async def until_fit(self) -> None:
        while self.unfit():
            self._became_fit.clear()
            await self._became_fit.wait()

    def note(self) -> None:
        """Something has changed: who waits for it goes on, and the log says so."""
        if not self._late():
            self.policy_in_force.set()
        if not self.unfit():
            self._became_fit.set()
        ready = not self.unready()
        if ready != self._said_ready:
            _log.info("ready" if ready else "no longer ready")
            self._said_ready = ready
