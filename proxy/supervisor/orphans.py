"""Pods that have ended and of which the agent does not say so: their namespaces are let go of all the same.

A namespace lives for as long as anybody holds it, and its veth pair with it (DESIGN 5: free within 2 s of the pod's
end, with the agent alive, dead or stopped). A stopped agent looks like a living one, so this looks in any case.
"""

import asyncio
import logging
import os
import re
import select
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxy.supervisor.waiting import pause

_log = logging.getLogger(__name__)

NetnsIdentity = tuple[int, int]
"""(st_dev, st_ino)"""

LOOK_EVERY_S: Final = 0.3
"""2 s is all there is, of which the kernel and the last answers take some. 0.1 % of a core for 250 named namespaces,
0.5 % when none has a name."""
LOOK_TWICE_S: Final = 0.1
"""Two looks agree before a pod is given up: what is between two names or two processes is there again by then."""
LOOK_AGAIN_S: Final = 10.0
"""For namespaces that nobody was ever seen in: their end cannot be noticed, and a walk through /proc is dear."""

SURE_AFTER_LOOKS: Final = 3
"""A worker of a proxy that is being replaced is inside a pod's namespace while it makes a socket there,
and may be met just then: 5 µs (DESIGN 6) some thousand times a second while a pod that ends refuses connections. One
that is met four times in a row lives there."""

_NSFS_MOUNT: Final = re.compile(rb"^\d+ \d+ (\d+):(\d+) net:\[(\d+)\] ", re.MULTILINE)
"""A namespace that has a name, in proc(5) mountinfo: its root is shown as `net:[INODE]`."""


class Orphans:
    """Which namespaces nobody but us holds any more. Pure: what is seen comes in, what is to go comes out."""

    def __init__(self) -> None:
        self._known: frozenset[NetnsIdentity] = frozenset()
        self._missed: frozenset[NetnsIdentity] = frozenset()

    @property
    def doubtful(self) -> bool:
        """One was missing at the last look."""
        return bool(self._missed)

    def learn(self, elsewhere: frozenset[NetnsIdentity]) -> None:
        """These are held by others as well: from now on their end can be noticed."""
        self._known |= elsewhere

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


class Names:
    """The namespaces that have a name. Read anew only when a mount has come or gone since: proc(5), mountinfo, poll."""

    def __init__(self) -> None:
        self._mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._mountinfo, select.POLLPRI)
        self._named: frozenset[NetnsIdentity] | None = None

    def look(self) -> frozenset[NetnsIdentity]:
        # Asked first, read then: what comes between the two is told by the next answer.
        if self._poll.poll(0) or self._named is None:
            found = _NSFS_MOUNT.findall(_read(self._mountinfo))
            self._named = frozenset((os.makedev(int(major), int(minor)), int(inode)) for major, minor, inode in found)
        return self._named

    def close(self) -> None:
        os.close(self._mountinfo)


@dataclass(slots=True)
class _Witness:
    """A process of a namespace, a descriptor that is readable when it has ended (pidfd_open(2)), and how often it was
    looked at."""

    process: str
    pidfd: int
    looks: int = 0


class Inhabited:
    """Which namespaces have a process. Remembers one of each, whose end the kernel tells: all processes of the node are
    asked only when a namespace has lost its own. One that only passes through is noticed at the next look, one that
    moves to another namespace after LOOK_AGAIN_S."""

    def __init__(self, own: int | None = None) -> None:
        """`own`: the process that counts for nothing, nor do its children; None for this one."""
        self._own = os.getpid() if own is None else own
        self._ends = select.epoll()
        self._witnesses: dict[NetnsIdentity, _Witness] = {}
        self._in_vain_s: dict[NetnsIdentity, float] = {}
        self._verify_s = 0.0
        # Who ends the watch does not wait for a look that is under way in another thread.
        self._using = threading.Lock()
        self._closed = False

    def look(self, wanted: frozenset[NetnsIdentity], now_s: float) -> frozenset[NetnsIdentity]:
        """Those of `wanted` that a process lives in. Blocking: some 10 µs a process of the node when all are asked."""
        with self._using:
            return frozenset() if self._closed else self._look(wanted, now_s)

    def _look(self, wanted: frozenset[NetnsIdentity], now_s: float) -> frozenset[NetnsIdentity]:
        self._drop_ended(wanted, now_s)
        self._in_vain_s = {netns: at_s for netns, at_s in self._in_vain_s.items() if netns in wanted}
        lost = {netns for netns in wanted - self._witnesses.keys() if now_s >= self._in_vain_s.get(netns, 0.0)}
        if lost:
            seen = _walk(lost, self._own)
            for netns, process in seen.items():
                self._remember(netns, process)
            for netns in lost - seen.keys():
                # The first time again at the next look: two must agree that a pod has ended.
                self._in_vain_s[netns] = now_s + LOOK_AGAIN_S if netns in self._in_vain_s else now_s
        return frozenset(self._witnesses)

    def close(self) -> None:
        with self._using:
            self._closed = True
            for netns in tuple(self._witnesses):
                self._drop(netns)
            self._ends.close()

    def _drop_ended(self, wanted: frozenset[NetnsIdentity], now_s: float) -> None:
        ended = {descriptor for descriptor, _ in self._ends.poll(0)}
        verify = now_s >= self._verify_s
        if verify:
            self._verify_s = now_s + LOOK_AGAIN_S
        for netns, witness in tuple(self._witnesses.items()):
            young = witness.looks < SURE_AFTER_LOOKS
            witness.looks += 1
            moved = (verify or young) and _netns_of(witness.process) != netns
            if witness.pidfd in ended or moved or netns not in wanted:
                self._drop(netns)

    def _remember(self, netns: NetnsIdentity, process: str) -> None:
        with suppress(OSError):  # it has ended meanwhile: the next look finds another one
            pidfd = os.pidfd_open(int(process))
            self._ends.register(pidfd, select.EPOLLIN)
            self._witnesses[netns] = _Witness(process, pidfd)
            self._in_vain_s.pop(netns, None)

    def _drop(self, netns: NetnsIdentity) -> None:
        witness = self._witnesses.pop(netns)
        self._ends.unregister(witness.pidfd)
        os.close(witness.pidfd)


class OrphanWatch:
    """Looks again and again at the namespaces that are `held`; has `forget` let go of those that have ended."""

    def __init__(
        self, held: Callable[[], frozenset[NetnsIdentity]], forget: Callable[[NetnsIdentity], Awaitable[None]]
    ) -> None:
        self._held = held
        self._forget = forget
        self._orphans = Orphans()
        self._let_go: frozenset[NetnsIdentity] = frozenset()
        self._new_pod = asyncio.Event()

    def pod_came(self) -> None:
        """It may end before the next look, and must have been seen until then."""
        self._new_pod.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        names, inhabited = Names(), Inhabited()
        try:
            while True:
                next_s = loop.time() + (LOOK_TWICE_S if self._orphans.doubtful else LOOK_EVERY_S)
                while (left_s := next_s - loop.time()) > 0:
                    await pause(left_s, self._new_pod)
                    if loop.time() < next_s:
                        self._orphans.learn(await _elsewhere(names, inhabited, self._held()))
                await self._look(names, inhabited)
        finally:
            names.close()
            inhabited.close()

    async def _look(self, names: Names, inhabited: Inhabited) -> None:
        held = self._held()
        gone = self._orphans.judge(held, await _elsewhere(names, inhabited, held))
        new, self._let_go = gone - self._let_go, gone
        for netns in new:
            _log.info("network namespace %d of a pod has ended before the agent said so: let go", netns[1])
        # Together: each waits for its worker's last answers.
        await asyncio.gather(*map(self._forget, new))


async def _elsewhere(names: Names, inhabited: Inhabited, wanted: frozenset[NetnsIdentity]) -> frozenset[NetnsIdentity]:
    """Those that somebody else holds."""
    elsewhere = wanted & names.look()
    if nameless := wanted - elsewhere:
        elsewhere |= await asyncio.to_thread(inhabited.look, nameless, time.monotonic())
    return elsewhere


def _walk(wanted: set[NetnsIdentity], own: int) -> dict[NetnsIdentity, str]:
    """A process of each of these namespaces, where there is one. Not this one and its workers: in a container they are
    all that is seen, and who is met while it makes a socket and then not again would be taken for a pod that ended."""
    found: dict[NetnsIdentity, str] = {}
    for process in os.listdir("/proc"):  # noqa: PTH208 - a thousand names
        if process.isdecimal():
            netns = _netns_of(process)
            if netns in wanted and not _is_of(own, process):
                found[netns] = process
    return found


def _is_of(own: int, process: str) -> bool:
    """proc(5), stat: the parent is the second field behind the command, which may hold brackets."""
    if int(process) == own:
        return True
    with suppress(OSError), open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123 - as its neighbours
        return int(file.read().rpartition(b")")[2].split()[1]) == own
    return True  # it has ended meanwhile


def _netns_of(process: str) -> NetnsIdentity | None:
    with suppress(OSError):  # it has ended meanwhile, or is none of ours to ask
        status = os.stat(f"/proc/{process}/ns/net")  # noqa: PTH116
        return status.st_dev, status.st_ino
    return None


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)
