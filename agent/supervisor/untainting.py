"""Takes a taint from this node, once the agent is ready and a proxy is there: kubelet --register-with-taints put it
there, so that no pod was scheduled before. It is never put back: who looks at an agent that is away, or is being
replaced, and taints the node for it races the agent that is coming (kuma #18741), and the plugin holds pods by then."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from agent.kube.backoff import Backoff
from agent.kube.client import ApiClient
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.resources import Resource
from agent.kube.watch import Pace
from agent.pods.taint import Taint, without

_log: Final = logging.getLogger("headgate.taint")

NODES: Final = Resource("", ("v1",), "Node", "nodes")
LOOK_EVERY_S: Final = 1.0
"""Whether the agent is ready: a node waits for it."""


class Untainting:
    """`problem`: why the taint is still there, as far as the API server says; empty without one."""

    def __init__(
        self, client: ApiClient, pace: Pace, node_name: str, taint: Taint, is_ready: Callable[[], bool]
    ) -> None:
        self._client = client
        self._pace = pace
        self._path = f"{NODES.path('v1')}/{quote(node_name, safe='')}"
        self._node_name = node_name
        self._taint = taint
        self._is_ready = is_ready
        self.problem = ""

    async def run(self) -> None:
        """Never returns."""
        while not self._is_ready():
            await self._pace.sleep(LOOK_EVERY_S)
        backoff = Backoff()
        while wanted_s := await self._tried(backoff):
            backoff = backoff.failed()
            await self._pace.sleep(wanted_s)
        await asyncio.Event().wait()

    async def _tried(self, backoff: Backoff) -> float:
        """Seconds until the next attempt; 0 when it is gone."""
        retry_after_s: float | None = None
        try:
            patch = without(self._taint, await self._client.get(self._path))
            if patch is not None:
                await self._client.patch(self._path, patch)
                _log.info("node %s: taint %s is taken away: the agent is ready", self._node_name, self._taint)
            self.problem = ""
            return 0.0
        except ApiRefused as error:
            retry_after_s = error.retry_after_s
            self._tell(error, conflict=error.status == 409)
        except (CannotReach, InvalidAccess) as error:
            self._tell(error, conflict=False)
        return backoff.failed().delay_s(self._pace.chance(), retry_after_s)

    def _tell(self, error: Exception, *, conflict: bool) -> None:
        """A conflict: somebody changed the node meanwhile, as kubelets do all the time."""
        problem = "" if conflict else f"taint {self._taint} of node {self._node_name} cannot be taken away: {error}"
        if problem and problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem
