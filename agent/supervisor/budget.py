"""Descriptors: as many as this process may have, and how many pods they suffice for."""

import logging
import resource
from typing import Final, Self

from agent.kernel import nft
from agent.printable import printable
from proxy.api.descriptor_needs import AGENT

_log: Final = logging.getLogger("headgate.agent")

MOST: Final = 1 << 20
"""fs.nr_open's default, and what runtimes give whom they do not limit; some give a thousand times that."""
_REMEDY: Final = "raise LimitNOFILE of the container runtime (or ulimit -Hn) and start the agent again"


def raise_limit() -> int:
    """Soft limit to hard limit; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class Budget:
    """Which pods may be enrolled. A pod that is refused takes nothing from those that are."""

    def __init__(self, limit: int) -> None:
        """`limit`: descriptors that the process may have."""
        self._limit = limit
        self.pods = AGENT.most_pods(limit)
        self._admitted: set[str] = set()
        self._refused: set[str] = set()

    def admit(self, uid: str) -> str:
        """Why not, "" for yes. Again for the same pod: the same, until another one has left."""
        if uid in self._admitted or len(self._admitted) < self.pods:
            self._admitted.add(uid)
            self._refused.discard(uid)
            return ""
        if not self._refused:
            _log.warning("%s; pod %s is refused", self._words(), printable(uid))
        self._refused.add(uid)
        return f"{self._words()}: {_REMEDY}"

    def release(self, uid: str) -> None:
        """The pod has gone. Harmless for one that was never admitted."""
        self._admitted.discard(uid)
        self._refused.discard(uid)

    @classmethod
    def of_this_process(cls) -> Self:
        """Its limit raised; and what libnftables needs of it set aside, before pods take it."""
        budget = cls(raise_limit())
        nft.keep_low_numbers()
        return budget

    @property
    def problem(self) -> str:
        """Empty while there is none."""
        if not self._refused:
            return ""
        return f"{self._words()}; {len(self._refused)} more are refused: {_REMEDY}"

    def _words(self) -> str:
        return f"the agent may open {self._limit} files, which is enough for {self.pods} pods"
