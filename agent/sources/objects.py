"""Kubernetes objects from a directory of YAML, for the proxies of this node; the cluster's API takes its place later.

What an object means is the proxy's business: here it is read, named and passed on as it is.
"""

import asyncio
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.printable import printable
from agent.sources.manifests import InvalidManifest, objects_in
from proxy.api import stream
from proxy.api.stream import ObjectName

_log: Final = logging.getLogger("headgate.sources")

LOOK_EVERY_S: Final = 0.2
"""What a person edits should seem immediate (the proxy's own directory is looked at as often)."""
SETTLE_S: Final = 0.1
"""A file that is written in place is taken once it has been still so long: it is truncated first, and an empty file
would take all its objects out of force. One that was moved into place is whole at once."""
MAX_FILE_BYTES: Final = 16 << 20
"""As the proxy's own directory takes them."""
_SUFFIXES: Final = (".yaml", ".yml")

Changes = Mapping[ObjectName, bytes | None]
"""Line of the object stream for each new version; None: gone."""


@dataclass(frozen=True, slots=True)
class _File:
    """As it was last read: its lines are those of its last good version if there is a problem."""

    inode: tuple[int, int]
    version: tuple[int, int, int]
    lines: Mapping[ObjectName, bytes]
    problem: str = ""


class ObjectsDirectory:
    """The objects of the `*.yaml` and `*.yml` files of one directory, symlinks followed; the first file by name counts
    where two hold the same object. A file that cannot be read keeps its last good objects and is named in `problems`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, _File] = {}
        self._lines: dict[ObjectName, bytes] = {}
        self._listed = False
        self.problems: tuple[str, ...] = ()

    async def changes(self) -> Changes:
        """The next change; the first time, all objects, once the directory can be listed."""
        while True:
            # In a thread: a large file takes a second, and connections wait on this loop.
            found = await asyncio.to_thread(self.look)
            if found is not None:
                return found
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> Changes | None:
        """What has changed since the last look, None for nothing; all at the first that succeeds. Never raises for what
        it finds."""
        known = self.problems
        files, problems = self._take_files()
        self.problems = (*problems, *(file.problem for file in (files or {}).values() if file.problem))
        for problem in self.problems:
            if problem not in known:
                _log.warning("%s", problem)
        if files is None or (
            self._listed
            and files.keys() == self._files.keys()
            and all(files[name] is self._files[name] for name in files)
        ):
            return None
        self._files, self._listed = files, True
        before, self._lines = self._lines, _merged(files)
        changed: dict[ObjectName, bytes | None] = {
            name: line for name, line in self._lines.items() if before.get(name) != line
        }
        changed.update({name: None for name in before if name not in self._lines})
        return changed

    def _take_files(self) -> tuple[dict[str, _File] | None, tuple[str, ...]]:
        """None for the files while the directory is away: its objects stay."""
        try:
            found = sorted(_list(self._path))
        except OSError as error:
            return None, (f"{self._path}: cannot be listed: {error.strerror}; its objects stay as they were",)
        files: dict[str, _File] = {}
        for name, status in found:
            known = self._files.get(name)
            files[name] = known if known is not None and not _is_due(known, status) else self._read(name, status)
        return files, ()

    def _read(self, name: str, status: os.stat_result) -> _File:
        """A file's objects, or its last good ones with the reason."""
        inode, version = _identity(status), _version(status)
        try:
            if status.st_size > MAX_FILE_BYTES:
                raise InvalidManifest(f"{status.st_size} bytes; at most {MAX_FILE_BYTES}")
            lines: dict[ObjectName, bytes] = {}
            for object_name, body in objects_in((self._path / name).read_text("utf-8-sig")):
                line = stream.encode(stream.ObjectSeen(body))
                if len(line) > stream.MAX_OBJECT_LINE_BYTES:
                    raise InvalidManifest(f"{object_name.kind} {object_name.name} is larger than any object may be")
                lines.setdefault(object_name, line)
        except (OSError, ValueError, RecursionError) as error:
            known = self._files.get(name)
            kept: Mapping[ObjectName, bytes] = {} if known is None else known.lines
            stays = f"; its last good {len(kept)} objects stay" if kept else ""
            return _File(inode, version, kept, f"{printable(name)}: {printable(str(error), 400)}{stays}")
        return _File(inode, version, lines)


def _merged(files: Mapping[str, _File]) -> dict[ObjectName, bytes]:
    merged: dict[ObjectName, bytes] = {}
    for file in files.values():
        for name, line in file.lines.items():
            merged.setdefault(name, line)
    return merged


def _list(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.endswith(_SUFFIXES):
                continue
            try:
                status = entry.stat()
            except OSError:
                continue  # gone meanwhile
            if stat.S_ISREG(status.st_mode):
                yield entry.name, status


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_due(known: _File, status: os.stat_result) -> bool:
    if _identity(status) != known.inode:
        return True
    if _version(status) == known.version:
        return False
    age_s = time.time() - max(status.st_mtime, status.st_ctime)
    return not 0 <= age_s < SETTLE_S
