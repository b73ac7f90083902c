"""A directory of Kubernetes YAML as a source of objects, read again when a file changes."""

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from proxy.config.admission import admit, rejection_of
from proxy.config.fields import InvalidPolicy
from proxy.config.manifest import InvalidManifest, documents, raw_objects
from proxy.config.objects import ObjectSet, RawObject
from proxy.config.text import printable
from proxy.model.snapshot import Rejection

SUFFIXES: Final = (".yaml", ".yml")
MAX_FILE_BYTES: Final = 16 << 20
"""Some 40,000 pods as kubectl prints them in short; etcd holds no object beyond 1.5 MiB."""
SETTLE_S: Final = 0.1
"""A file that was in force and changes is taken when it has been still this long: whoever writes in place truncates it
first, and an empty file would take all its objects out of force for an instant."""


class UnreadableDirectory(OSError):
    """The directory cannot be listed and never was: there are no last good objects. May be retried."""


class _Signature(NamedTuple):
    """Changes whenever a file's content may have; ConfigMap mounts swap a symlink, which changes the inode."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was last taken. `objects` are its last good ones if `problems` says that it cannot be parsed now."""

    signature: _Signature
    digest: bytes
    objects: tuple[RawObject, ...]
    problems: tuple[Rejection, ...]


class ObjectDirectory:
    """The objects in the `*.yaml` and `*.yml` files of one directory, symlinks followed, subdirectories and dot files
    not; the first file by name wins where two hold the same object.

    A file that cannot be read or parsed keeps its last good objects and is reported with its line. Not for several
    threads at once. `wall_clock_ns` is compared with files' times.
    """

    def __init__(
        self, path: Path | str, *, settle_s: float = SETTLE_S, wall_clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._path = Path(path)
        self._settle_ns = int(settle_s * 1e9)
        self._wall_clock_ns = wall_clock_ns
        self._files: dict[str, _File] = {}
        self._current: ObjectSet | None = None
        self._listing_problem: tuple[Rejection, ...] = ()

    def changed(self) -> bool:
        """Whether `read` would find something new. Costs one stat a file. Never raises."""
        if self._current is None:
            return True
        try:
            found = self._list()
        except OSError:
            return not self._listing_problem
        if self._listing_problem or found.keys() != self._files.keys():
            return True
        return any(self._is_due(name, signature) for name, signature in found.items())

    def read(self) -> ObjectSet:
        """All objects in force now; the same ObjectSet as before if nothing has changed.

        Raises UnreadableDirectory if the directory could never be listed.
        """
        try:
            found = self._list()
        except OSError as error:
            if self._current is None:
                raise UnreadableDirectory(error.errno, f"cannot list {self._path}: {error.strerror}") from error
            return self._hold(error)
        files = {name: self._take(name, found[name]) for name in sorted(found)}
        same = files.keys() == self._files.keys() and all(files[name] is self._files[name] for name in files)
        if self._current is not None and same and not self._listing_problem:
            return self._current
        self._files, self._listing_problem = files, ()
        self._current = self._admit()
        return self._current

    def _admit(self) -> ObjectSet:
        files = self._files.values()
        problems = (*self._listing_problem, *(problem for file in files for problem in file.problems))
        return admit((raw for file in files for raw in file.objects), problems, self._current)

    def _hold(self, error: OSError) -> ObjectSet:
        """Everything stays in force while the directory is away."""
        problem = Rejection(
            f"directory {printable(str(self._path))}", "", f"cannot be listed: {error.strerror}", stale=True
        )
        if self._current is None or self._listing_problem != (problem,):
            self._listing_problem = (problem,)
            self._current = self._admit()
        return self._current

    def _list(self) -> dict[str, _Signature]:
        """Regular files by name, without one that vanishes meanwhile; raises OSError for the directory itself."""
        found: dict[str, _Signature] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith(SUFFIXES):
                    continue
                try:
                    status = entry.stat()
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[entry.name] = _signature(status)
        return found

    def _is_due(self, name: str, signature: _Signature) -> bool:
        """Whether a file is to be read: new, moved into place, or changed and still since then (a time in the future
        counts as still)."""
        known = self._files.get(name)
        if known is None or (known.signature.device, known.signature.inode) != (signature.device, signature.inode):
            return True
        age_ns = self._wall_clock_ns() - max(signature.mtime_ns, signature.ctime_ns)
        return known.signature != signature and not 0 <= age_ns < self._settle_ns

    def _take(self, name: str, signature: _Signature) -> _File:
        known = self._files.get(name)
        if known is not None and not self._is_due(name, signature):
            return known
        try:
            content, signature = _read(self._path / name)
        except (OSError, InvalidManifest) as error:
            reason = error.strerror or "cannot be read" if isinstance(error, OSError) else error.reason
            return self._keep(name, signature, b"", "", f"cannot be read: {reason}")
        digest = blake2b(content).digest()
        if known is not None and known.digest == digest:
            return _File(signature, digest, known.objects, known.problems)
        try:
            objects, problems = _parse(name, content.decode("utf-8-sig"))
        except InvalidManifest as error:
            return self._keep(name, signature, digest, f"line {error.line}, column {error.column}", error.reason)
        except UnicodeDecodeError as error:
            return self._keep(name, signature, digest, f"byte {error.start}", "is not UTF-8")
        return _File(signature, digest, objects, problems)

    def _keep(self, name: str, signature: _Signature, digest: bytes, field: str, reason: str) -> _File:
        known = self._files.get(name)
        objects = () if known is None else known.objects
        problem = Rejection(
            f"file {printable(name)}", field, printable(reason), stale=bool(objects), remedy="correct the file"
        )
        return _File(signature, digest, objects, (problem,))


def _signature(status: os.stat_result) -> _Signature:
    return _Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: Path) -> tuple[bytes, _Signature]:
    """Content and signature of the same file, whatever happens to its name meanwhile.

    Non-blocking, or a FIFO put in the file's place would hold us for ever. Raises OSError, or InvalidManifest if too
    large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidManifest(1, 1, "is not a regular file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise InvalidManifest(1, 1, f"is larger than {MAX_FILE_BYTES} bytes")
    return content, _signature(status)


def _parse(name: str, text: str) -> tuple[tuple[RawObject, ...], tuple[Rejection, ...]]:
    objects, problems = [], []
    for document in documents(text):
        source = f"{printable(name)}:{document.line}"
        for found in raw_objects(document.value, source):
            if isinstance(found, InvalidPolicy):
                problems.append(rejection_of(found, source))
            else:
                objects.append(found)
    return tuple(objects), tuple(problems)
