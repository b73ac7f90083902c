"""Pods that have ended while no agent was there to say so: their namespaces are let go of all the same.

A namespace lives for as long as anybody holds it, and its veth pair with it (DESIGN 5: free within 2 s of the pod's
end, with the agent alive or dead). While an agent is connected it is the one who says what has ended.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy.supervisor.pods import NetnsIdentity, Pods

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.4
"""Two looks agree before a pod is given up, and 2 s is all there is; the kernel takes some of it."""

_NSFS_MOUNT: Final = re.compile(r"^\d+ \d+ (\d+):(\d+) net:\[(\d+)\] ", re.MULTILINE)
"""A namespace that has a name, in proc(5) mountinfo: its root is shown as `net:[INODE]`."""


class Orphans:
    """Which namespaces nobody but us holds any more. Pure: what is seen comes in, what is to go comes out."""

    def __init__(self) -> None:
        self._known: frozenset[NetnsIdentity] = frozenset()
        self._missed: frozenset[NetnsIdentity] = frozenset()

    def judge(self, held: Iterable[NetnsIdentity], elsewhere: frozenset[NetnsIdentity]) -> frozenset[NetnsIdentity]:
        """Those of `held` that were `elsewhere` once, and twice in a row are no longer.

        One that was never seen elsewhere is kept: a proxy without the node's processes and mounts in sight (no
        hostPID, no mount propagation) sees nobody's, and must not take that for their end.
        """
        ours = frozenset(held)
        self._known = ours & (self._known | elsewhere)
        missing = self._known - elsewhere
        gone = missing & self._missed
        self._missed = missing
        return gone


class OrphanWatch:
    """Looks while no agent is connected, and once for pods that are new; forgets the ended ones."""

    def __init__(self, pods: Pods, agent_connected: Callable[[], bool]) -> None:
        self._pods = pods
        self._agent_connected = agent_connected
        self._orphans = Orphans()
        self._looked_for: frozenset[NetnsIdentity] = frozenset()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            held = frozenset(pod.netns for pod in self._pods.served)
            if self._agent_connected() and held == self._looked_for:
                continue
            # In a thread: it asks for each process of the node, some 10 µs each.
            gone = self._orphans.judge(held, await asyncio.to_thread(in_use))
            self._looked_for = held
            if gone and not self._agent_connected():
                await self._forget(gone)

    async def _forget(self, gone: frozenset[NetnsIdentity]) -> None:
        for pod in self._pods.served:
            if pod.netns in gone:
                _log.info("network namespace %d of a pod has ended, and no agent says so: let go", pod.netns[1])
                await self._pods.forget(pod.identity.uid)


def in_use() -> frozenset[NetnsIdentity]:
    """Network namespaces that have a name or a process. Blocking."""
    found: set[NetnsIdentity] = set()
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        for major, minor, inode in _NSFS_MOUNT.findall(mounts):
            found.add((os.makedev(int(major), int(minor)), int(inode)))
    for process in os.listdir("/proc"):  # noqa: PTH208 - a thousand names twice a second
        if process.isdecimal():
            with suppress(OSError):  # it has ended meanwhile, or is none of ours to ask
                status = os.stat(f"/proc/{process}/ns/net")  # noqa: PTH116
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)
