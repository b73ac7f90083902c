"""Pods without a cluster: those that a file lists, or every named network namespace.

What counts is the namespace behind a name. A look at 250 of them takes 2 to 3 ms, so they are looked at when there is
a sign that one has changed; inotify would not do, for a mount over an existing file makes no event of it.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.pods import InvalidPod, NetnsId, PodRef
from agent.printable import printable
from agent.sources.events import PodChanged, PodGone, PodSeen, Skipped, SourceEvent
from agent.sources.pods_file import InvalidPodsFile, ListedPod, Problem, derived_uid, parse_pods
from agent.sources.signs import Signs

_log: Final = logging.getLogger("headgate.sources")

NETNS_DIRECTORY: Final = Path("/run/netns")  # ip-netns(8)
_OWN_NETNS: Final = Path("/proc/self/ns/net")
LOOK_EVERY_S: Final = 0.1
"""For signs, 20 µs each time. 250 pods that are replaced have a second for all (issue 3), a dead one's veth two."""
UNSIGNED_EVERY_S: Final = 0.5
"""For namespaces that are no mounts (/proc/PID/ns/net, links) and so give no sign: a quarter of those two seconds."""
REGARDLESS_EVERY_S: Final = 30.0
"""Whatever the signs say: they are the kernel's word, and its mounts may be another container's."""
_MAX_FILE_BYTES: Final = 4 << 20
"""250 pods with every annotation Kubernetes permits on average (16 KiB each)."""


@dataclass(frozen=True, slots=True)
class _Present:
    """A pod whose namespace is there. `made_ns` tells two namespaces apart that had the same number one after the
    other: the kernel gives a freed number to the next one."""

    listed: ListedPod
    netns_id: NetnsId
    made_ns: int


@dataclass(slots=True)
class _List:
    """What is to be looked at, and what of it cannot be used. `version` tells whether it must be made again: the
    names in the directory, or what stat(2) says of the file."""

    pods: tuple[ListedPod, ...] = ()
    problems: tuple[str, ...] = ()
    version: tuple[int | str, ...] = ()


class NetnsSource:
    """Iterate over it for what happens, from the first pods on; `problems` says what could not be understood.

    `pods_file` None: every namespace named in `directory` is a pod of that name in namespace "default". A file is read
    again when it changed; while it is missing or malformed the last good list stays in force, and an entry that became
    wrong keeps its last good form: a typing error takes no pod out of the mesh.
    """

    def __init__(
        self, pods_file: Path | None, directory: Path = NETNS_DIRECTORY, look_every_s: float = LOOK_EVERY_S
    ) -> None:
        self._file = pods_file
        self._directory = directory
        self._look_every_s = look_every_s
        self._list = _List()
        self._present: dict[str, _Present] = {}
        self._unsigned = False

    @property
    def problems(self) -> tuple[str, ...]:
        """One line each: file, entry, field, reason."""
        return self._list.problems

    def listed_at(self, namespace: str, name: str) -> str | None:
        """The path at which the namespace of this pod is to be, there or not; None for a pod that is not listed."""
        wanted = (namespace, name)
        return next((one.netns_path for one in self._list.pods if (one.pod.namespace, one.pod.name) == wanted), None)

    skipped: tuple[Skipped, ...] = ()
    """Who is listed, or has a name, is told of."""

    @property
    def place(self) -> str:
        return str(self._file or self._directory)

    async def first(self) -> list[SourceEvent]:
        return await asyncio.to_thread(self.look)

    async def __aiter__(self) -> AsyncIterator[SourceEvent]:
        loop = asyncio.get_running_loop()
        with Signs((self._directory, *(() if self._file is None else (self._file,)))) as signs:
            while True:
                # In a thread: reading a long file takes tens of milliseconds, and connections wait on this loop.
                for event in await asyncio.to_thread(self.look):
                    yield event
                due = loop.time() + (UNSIGNED_EVERY_S if self._unsigned else REGARDLESS_EVERY_S)
                while not signs.seen() and loop.time() < due:
                    await asyncio.sleep(self._look_every_s)

    def look(self) -> list[SourceEvent]:
        """What happened since the last look. Gone before seen: a namespace may pass from one pod to the next."""
        known, before = self._list.problems, self._list.pods
        self._list = self._list_names() if self._file is None else self._read_file(self._file)
        if self._list.pods is not before:
            self._unsigned = any(self._is_unsigned(listed.netns_path) for listed in self._list.pods)
        for problem in self._list.problems:
            if problem not in known:
                _log.warning("%s", problem)
        nsfs = _OWN_NETNS.stat().st_dev
        found = {listed.pod.uid: present for listed in self._list.pods if (present := _locate(listed, nsfs))}
        gone, came = self._compare(found)
        self._present = found
        return [*gone, *came]

    def _is_unsigned(self, path: str) -> bool:
        """No mount of its own: nothing tells when another namespace comes to be behind it."""
        if os.path.islink(path) or os.path.realpath(path).startswith("/proc/"):  # noqa: PTH114 - of 250 paths at once
            return True
        return not Path(path).is_relative_to(self._directory) and not Path(path).exists()

    def _compare(self, found: dict[str, _Present]) -> tuple[list[SourceEvent], list[SourceEvent]]:
        gone: list[SourceEvent] = [PodGone(uid) for uid in self._present if uid not in found]
        came: list[SourceEvent] = []
        for uid, now in found.items():
            before = self._present.get(uid)
            if before is not None and _is_successor(before, now):
                gone.append(PodGone(uid))
                before = None
            if before is None:
                came.append(PodSeen(now.listed.pod, now.listed.netns_path, now.netns_id))
            elif (before.listed, before.netns_id) != (now.listed, now.netns_id):
                came.append(PodChanged(now.listed.pod, now.listed.netns_path, now.netns_id))
        return gone, came

    def _list_names(self) -> _List:
        try:
            names = tuple(sorted(path.name for path in self._directory.iterdir()))
        except FileNotFoundError:
            return _List()  # made by the first `ip netns add`
        if names == self._list.version:
            return self._list
        pods: list[ListedPod] = []
        problems: list[str] = []
        for name in names:
            path = str(self._directory / name)
            try:
                pods.append(ListedPod(PodRef(derived_uid("default", name, path), "default", name), path))
            except InvalidPod as error:
                problems.append(f"{printable(path)}: {error.field}: {printable(error.reason)}; list it in a pods file")
        return _List(tuple(pods), tuple(problems), names)

    def _read_file(self, path: Path) -> _List:
        last = self._list
        try:
            version = _version(path)
            if version == last.version:
                return last
            if version[-1] > _MAX_FILE_BYTES:
                raise InvalidPodsFile(f"{version[-1]} bytes; at most {_MAX_FILE_BYTES}")
            pods, problems = parse_pods(path.read_text("utf-8"), self._directory)
        except FileNotFoundError:
            return _List(last.pods, (f"{path}: is not there; {_stays(last)}",))
        except (OSError, UnicodeDecodeError, InvalidPodsFile) as error:
            return _List(last.pods, (f"{path}: {printable(str(error))}; {_stays(last)}",), version)
        kept = _last_good(last.pods, pods, problems)
        return _List((*pods, *kept), tuple(f"{path}: {problem}" for problem in problems), version)


def _version(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _stays(last: _List) -> str:
    return f"the last good list of {len(last.pods)} pods stays" if last.pods else "no pod is known from it yet"


def _last_good(
    last: tuple[ListedPod, ...], now: tuple[ListedPod, ...], problems: tuple[Problem, ...]
) -> tuple[ListedPod, ...]:
    """The former entries of those that are wrong now, unless somebody else has taken their uid or namespace."""
    wrong = {problem.key for problem in problems}
    taken = {listed.pod.uid for listed in now} | {listed.netns_path for listed in now}
    return tuple(
        listed
        for listed in last
        if str(listed.pod) in wrong and listed.pod.uid not in taken and listed.netns_path not in taken
    )


def _locate(listed: ListedPod, nsfs: int) -> _Present | None:
    """None while the path names nothing on device `nsfs`, where namespaces are: `ip netns add` makes the file first
    and mounts the namespace then."""
    try:
        status = os.stat(listed.netns_path)  # noqa: PTH116 - twice as fast, and run 500 times a second at 250 pods
    except OSError:
        return None
    if status.st_dev != nsfs:
        return None
    return _Present(listed, NetnsId(status.st_dev, status.st_ino), status.st_ctime_ns)


def _is_successor(before: _Present, now: _Present) -> bool:
    """Another namespace with the number of the former. A mounted one keeps its inode and so its time of birth; behind
    /proc the inode is made anew for whoever looks, and its time says nothing."""
    if before.netns_id != now.netns_id or before.made_ns == now.made_ns:
        return False
    path = now.listed.netns_path
    return not (path.startswith("/proc/") or Path(path).resolve().is_relative_to("/proc"))
