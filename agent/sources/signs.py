"""What betrays, cheaply, that named namespaces have come or gone: so that all are looked at only then.

A namespace behind a name is a mount, and the kernel tells whoever polls mountinfo of each change of mounts (proc(5);
fs/proc_namespace.c: mounts_poll). A name that comes or goes changes its directory; a list of pods, its file.
"""

import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

_MOUNTS: Final = "/proc/self/mountinfo"

_Version = tuple[int, int, int, int]


class Signs:
    """Watches the process's mounts and some paths. The first `seen` tells of what happened since it was made."""

    __slots__ = ("_fd", "_paths", "_poll", "_versions")

    def __init__(self, paths: Iterable[Path]) -> None:
        """OSError when the mounts cannot be watched."""
        self._paths = tuple(str(path) for path in paths)
        self._fd = os.open(_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)
        self._versions = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def seen(self) -> bool:
        """Something has changed since the last call. What changes during a look is seen by the next call."""
        mounts = bool(self._poll.poll(0))
        versions = self._read()
        changed = mounts or versions != self._versions
        self._versions = versions
        return changed

    def _read(self) -> tuple[_Version | None, ...]:
        return tuple(map(_version, self._paths))


def _version(path: str) -> _Version | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - half of Path.stat's time, ten times a second
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
