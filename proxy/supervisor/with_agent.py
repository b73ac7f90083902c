"""The surroundings of a node's proxy: an agent, and its three sockets."""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from proxy.api.constants import FDS_SOCKET, OBJECTS_SOCKET, PROXY_MARK, ZDS_SOCKET
from proxy.datapath.netns import NetnsEntry
from proxy.errors import CannotStart
from proxy.supervisor.agent_link import ProofReporter, ZdsClient
from proxy.supervisor.fd_store import FdStore
from proxy.supervisor.handovers import PodKey
from proxy.supervisor.listener_source import ListenerSource
from proxy.supervisor.node_policy import NodePolicy
from proxy.supervisor.orphans import OrphanWatch
from proxy.supervisor.pods import Pods
from proxy.supervisor.surroundings import Parts
from proxy.workerlink import ProofSeen

SETNS_REMEDY: Final = (
    "run the proxy as root with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW, or with --sidecar inside the one pod "
    "that it is to serve"
)


_log = logging.getLogger(__name__)


class WithAgent:
    """The agent of this node, whenever it is there."""

    worker_options: Final = ()

    def __init__(self, run_dir: Path) -> None:
        """Raises CannotStart when namespaces cannot be entered."""
        try:
            self.entry = NetnsEntry()
            with self.entry.enter(self.entry.fileno()):
                pass
        except OSError as error:
            raise CannotStart(f"network namespaces cannot be entered: {error.strerror}; {SETNS_REMEDY}") from error
        self._forbidden = _forbidden()
        if self._forbidden:
            _log.error("not ready, and will not be: %s", self._forbidden)
        self._run_dir = run_dir
        self._store = FdStore(run_dir / FDS_SOCKET, self._store_reached)
        self.source = ListenerSource(self.entry, self._store)

    def attend(self, pods: Pods, policy: NodePolicy, on_change: Callable[[], None], in_force: asyncio.Event) -> None:
        self._on_change = on_change
        self._zds = ZdsClient(self._run_dir / ZDS_SOCKET, pods, self._agent_changed)
        self._orphans = OrphanWatch(lambda: pods.held, pods.forget_ended)
        self._proofs = ProofReporter(self._run_dir / OBJECTS_SOCKET, policy.objects, in_force)

    @property
    def to_the_end(self) -> Parts:
        return self._zds.run, self._orphans.run, self._store.run

    @property
    def until_then(self) -> Parts:
        return (self._proofs.run,)

    @property
    def connected(self) -> bool:
        return self._zds.connected

    @property
    def missing(self) -> str:
        if self._forbidden:
            return self._forbidden
        if self._zds.snapshot_complete:
            return ""
        return f"no complete snapshot from the agent on {self._run_dir / ZDS_SOCKET} yet"

    def shares(self, asked: Mapping[PodKey, int]) -> Mapping[PodKey, int]:
        return asked

    def pod_came(self) -> None:
        self._orphans.pod_came()

    def note_proof(self, proof: ProofSeen) -> None:
        self._proofs.report(proof)

    def leave(self) -> None:
        self._zds.leave()
        self._store.leave()

    def close(self) -> None:
        self._store.close()
        self.entry.close()

    def _store_reached(self) -> None:
        """A new agent shows itself: it wants to know at once who serves."""
        self._zds.retry_now()
        self._proofs.retry_now()

    def _agent_changed(self) -> None:
        if self._zds.connected:
            self._proofs.retry_now()
        self._on_change()


def _forbidden() -> str:
    """What the kernel would refuse for every pod; empty when it would not. Tried before a proxy that works is replaced:
    listeners can be taken over without it, connections to upstreams cannot be made."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
    except PermissionError as error:
        return f"no pod can be served: SO_MARK: {error.strerror}; CAP_NET_ADMIN is missing: {SETNS_REMEDY}"
    return ""
