"""The network namespaces of Kubernetes' pods, found by the processes in them: who runs in which pod is in the names of
its cgroups, whatever runtime, driver or version of cgroups made them.

/proc may be another's (the node's, mounted into the agent's container): pids are only names in it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.pods import NetnsId
from agent.pods.sandbox import Sandbox

_POD: Final = re.compile(
    rb"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?![0-9a-zA-Z])"
)
"""/kubepods/burstable/podUID/ID (cgroupfs), …-podUID_WITH_UNDERSCORES.slice/… (systemd); 32 digits: a static pod's
(kubelet/cm: pod_container_manager_linux.go, cgroup_manager_linux.go). The first one in a path is the kubelet's: what
comes behind it a pod may have named."""
_STARTED: Final = 19
"""Field 22 of /proc/PID/stat, counted behind the command: starttime (proc(5))."""


@dataclass(frozen=True, slots=True)
class _Process:
    """Of a pod. `inode`: of its directory; while that is the same, so is the process (fs/proc/base.c: an inode belongs
    to a struct pid, and is dropped with it)."""

    inode: int
    uid: str
    started: int


@dataclass(frozen=True, slots=True)
class _Found:
    started: int
    path: str
    netns_id: NetnsId


Remembered = dict[str, _Process]
"""Pods' processes by pid, from one look to the next: what a process is, and in which pod, never changes."""


def sandboxes(proc: Path, mounts: tuple[Path, ...], remembered: Remembered | None = None) -> Mapping[str, Sandbox]:
    """By pod uid. Of a pod's processes the oldest counts: a container may have made itself a namespace of its own
    (istio #55139). Processes in the node's own namespace are nobody's: conmon, and pods on the host's network.
    Raises OSError when `proc` cannot be listed."""
    node = _netns(f"{proc}/1/ns/net")
    oldest: dict[str, _Found] = {}
    now = _of_pods(str(proc), remembered or {})
    # Oldest first: of most pods only one process is looked at, a sandbox' pause.
    for pid, process in sorted(now.items(), key=_age):
        if process.uid not in oldest:
            found = _looked(f"{proc}/{pid}", process)
            if found is not None and found.netns_id != node:
                oldest[process.uid] = found
    if remembered is not None:
        remembered.clear()
        remembered.update(now)
    named = _named(mounts) if oldest else {}
    return {uid: Sandbox(named.get(found.netns_id, found.path), found.netns_id) for uid, found in oldest.items()}


def _age(of: tuple[str, _Process]) -> int:
    return of[1].started


def _of_pods(proc: str, remembered: Remembered) -> Remembered:
    found: Remembered = {}
    with os.scandir(proc) as entries:
        for entry in entries:
            pid = entry.name
            if not pid.isdecimal():
                continue
            process = remembered.get(pid)
            if process is None or process.inode != entry.inode():
                process = _read(f"{proc}/{pid}", entry.inode())
            if process is not None:
                found[pid] = process
    return found


def _read(path: str, inode: int) -> _Process | None:
    """None for who is in no pod, or has ended meanwhile. Who is in none now may be moved into one: a runtime does so
    with each container's first process."""
    try:
        with open(f"{path}/cgroup", "rb") as file:  # noqa: PTH123 - of thousands of processes
            match = _POD.search(file.read())
        if match is None:
            return None
        with open(f"{path}/stat", "rb") as file:  # noqa: PTH123
            started = int(file.read().rpartition(b")")[2].split()[_STARTED])
    except (OSError, IndexError, ValueError):
        return None
    return _Process(inode, match[1].decode().replace("_", "-"), started)


def _looked(path: str, process: _Process) -> _Found | None:
    """None when it has ended meanwhile. Asked after the namespace: else another process' could be taken for this one's,
    under a pid that was given away again."""
    identity = _netns(f"{path}/ns/net")
    try:
        still = os.stat(path).st_ino == process.inode  # noqa: PTH116
    except OSError:
        return None
    return _Found(process.started, f"{path}/ns/net", identity) if identity is not None and still else None


def _netns(path: str) -> NetnsId | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - of thousands of processes
    except OSError:
        return None
    return NetnsId(status.st_dev, status.st_ino)


def _named(mounts: tuple[Path, ...]) -> dict[NetnsId, str]:
    """What CNI plugins and runtimes bind their namespaces to."""
    found: dict[NetnsId, str] = {}
    for directory in mounts:
        try:
            names = sorted(os.listdir(directory))  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            identity = _netns(f"{directory}/{name}")
            if identity is not None:
                found.setdefault(identity, f"{directory}/{name}")
    return found
