"""Who holds the locks that keep others from changing rules: flock(2) as /proc/locks tells it."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.doctor.facts import HeldLock

XTABLES_LOCKS: Final = (Path("/run/xtables.lock"), Path("/var/run/xtables.lock"))
"""iptables 1.8's XT_LOCK_NAME, in a container often a mount of the node's."""
_LOCKS: Final = Path("/proc/locks")
_FLOCK: Final = re.compile(r"\d+: FLOCK\s+ADVISORY\s+WRITE (-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ")

FileId = tuple[int, int]
"""Device and inode of stat(2)."""


@dataclass(frozen=True, slots=True)
class Holder:
    """`file`: what the lock's file is for people."""

    file: str
    pid: int


def files(paths: Iterable[Path]) -> dict[FileId, str]:
    """What may be locked; one file may have several names, the first counts."""
    found: dict[FileId, str] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        found.setdefault((status.st_dev, status.st_ino), str(path))
    return found


def holders(wanted: Mapping[FileId, str], locks: Path = _LOCKS) -> frozenset[Holder]:
    """Raises OSError. A holder in another pid namespace has no pid here (0 or less)."""
    found = set()
    for pid, major, minor, inode in _FLOCK.findall(locks.read_text("utf-8", "replace")):
        name = wanted.get((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
        if name is not None:
            found.add(Holder(name, int(pid)))
    return frozenset(found)


def held(before: frozenset[Holder], after: frozenset[Holder], looked_s: float) -> tuple[HeldLock, ...]:
    """Those that were not let go, as far as two looks can tell: for a change a lock is held for milliseconds."""
    return tuple(
        HeldLock(holder.file, holder.pid, _command(holder.pid), looked_s)
        for holder in sorted(before & after, key=lambda holder: (holder.file, holder.pid))
    )


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").strip("\n")
    except OSError:
        return ""
