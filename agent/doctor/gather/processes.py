"""All processes of the node, read once: whose namespace each is in, what it may do, and which are ours."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from agent.doctor.facts import Descriptors, MeshProcess, Process
from agent.kernel.node_proc import node_proc
from agent.kernel.socket_owners import SocketOwner
from agent.pods import NetnsId

_ROLES: Final = frozenset({"agent", "proxy"})
_WORKER: Final = "proxy.worker"
_WORDS: Final = 6
"""Of a command line, in which its program and verb are: an interpreter with a few options may be in front."""
_OBJECTS: Final = ("--objects-dir", "--config-dir")
_LARGEST_BYTES: Final = 1 << 16
PROC: Final = node_proc()


@dataclass(slots=True)
class Seen:
    """`by_netns`: of the namespaces that were asked for. `cgroups`: paths in the v2 tree of their processes.
    `objects`: the directory that the agent or proxy of the run directory was told to take objects from.
    `unreadable`: processes whose namespace is not ours to see."""

    by_netns: dict[NetnsId, list[Process]] = field(default_factory=dict)
    cgroups: set[str] = field(default_factory=set)
    mesh: list[MeshProcess] = field(default_factory=list)
    objects: Path | None = None
    unreadable: int = 0


def processes(wanted: Collection[NetnsId], run_dir: Path, proc: Path = PROC) -> Seen:
    """One that ends meanwhile is left out."""
    seen = Seen()
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            _look(process, int(process.name), wanted, run_dir, seen)
        except PermissionError:
            seen.unreadable += 1
        except (OSError, ValueError):
            continue
    return seen


def _look(process: Path, pid: int, wanted: Collection[NetnsId], run_dir: Path, seen: Seen) -> None:
    status = (process / "ns/net").stat()
    netns = NetnsId(status.st_dev, status.st_ino)
    words = _read(f"{process}/cmdline").split("\0")
    role = _role(words)
    if role is not None:
        open_now = sum(1 for _ in (process / "fd").iterdir())
        seen.mesh.append(MeshProcess(pid, role, _limit(f"{process}/limits"), open_now, netns in wanted))
        if netns not in wanted and _option(words, ("--run-dir",)) in (None, str(run_dir)):
            seen.objects = seen.objects or _objects(process, words)
    if netns in wanted:
        seen.by_netns.setdefault(netns, []).append(_process(process, pid))
        for line in _read(f"{process}/cgroup").splitlines():
            if line.startswith("0::"):
                seen.cgroups.add(line[3:])


def _process(process: Path, pid: int) -> Process:
    fields = dict(line.partition(":\t")[::2] for line in _read(f"{process}/status").splitlines())
    return Process(pid, fields["Name"].strip(), int(fields["CapEff"], 16), int(fields["CapBnd"], 16))


def _role(words: list[str]) -> str | None:
    """Of `headgate VERB …` and of `python -m agent VERB …`, whichever way it was started; and of a proxy's workers."""
    for place, (word, after) in enumerate(pairwise(words[:_WORDS])):
        if word.rpartition("/")[2] == "headgate" and after in _ROLES:
            return after
        if word == "-m" and after == _WORKER:
            return "worker"
        if word == "-m" and after == "agent" and words[place + 2 : place + 3] and words[place + 2] in _ROLES:
            return words[place + 2]
    return None


def _objects(process: Path, words: list[str]) -> Path | None:
    """Only of a process that sees the same files: another container may call a program as it likes, and what its path
    leads to here is for that container to choose."""
    path = _option(words, _OBJECTS)
    same = (process / "ns/mnt").samefile(process.parent / "self/ns/mnt")
    return Path(path) if same and path is not None and path.startswith("/") else None


def _option(words: list[str], names: tuple[str, ...]) -> str | None:
    """`NAME VALUE` or `NAME=VALUE`."""
    for word, after in zip(words, (*words[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else after
    return None


def _limit(path: str) -> int:
    line = next(line for line in _read(path).splitlines() if line.startswith("Max open files"))
    soft = line.split()[3]
    return 1 << 30 if soft == "unlimited" else int(soft)


def owners(inodes: Collection[int], proc: Path = PROC) -> dict[int, SocketOwner]:
    """Who holds these sockets, the lowest pid of each; one pass over all processes' descriptors, so only for what
    somebody is to be told of."""
    found: dict[int, SocketOwner] = {}
    links = {f"socket:[{inode}]": inode for inode in inodes}
    pids = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()) if links else []
    for pid in pids:
        try:
            held = {str(entry.readlink()) for entry in (proc / str(pid) / "fd").iterdir()} & links.keys()
            for link in held:
                command = _read(f"{proc}/{pid}/comm").strip("\n")
                found.setdefault(links[link], SocketOwner(pid, command))
        except OSError:
            continue  # it ended meanwhile, closed one, or is not ours to read
    return found


def descriptors(mesh: list[MeshProcess], proc: Path = PROC) -> Descriptors:
    """Raises OSError."""
    allocated, _, maximum = _read(f"{proc}/sys/fs/file-nr").split()
    return Descriptors(int(allocated), int(maximum), tuple(mesh))


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _LARGEST_BYTES).decode("utf-8", "replace")
    finally:
        os.close(fd)
