"""The CNI directory of a node: our plugin is put into the first configuration there, and put back when somebody else
writes it anew. Files are looked at, not watched (docs/adr/0005): a second is little beside a pod's start.

A change is written beside and moved into its place, so a runtime reads the old or the new, and a full disk changes
nothing.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.chaining.conflist import PLUGIN, BadConflist, Chained, first_of, holds_ours, with_ours, without_ours

_log: Final = logging.getLogger("headgate.chaining")

LOOK_EVERY_S: Final = 1.0
_MAX_BYTES: Final = 1 << 20
_ASIDE: Final = ".before-headgate"
"""Behind the name of a single plugin's configuration whose place a list has taken: `10-x.conf` sorts before
`10-x.conflist`, so it cannot stay."""


@dataclass(frozen=True, slots=True)
class NodeDirectories:
    """`plugin`: the program to be copied into `bin_dir`; `own_file`: write a list of our own by this name, made of the
    first of the others, instead of changing that."""

    conf_dir: Path
    bin_dir: Path
    plugin: Path
    own_file: str = ""


class NodeChain:
    """`problem`: why our plugin is not in the chain; empty when it is."""

    def __init__(self, directories: NodeDirectories, ours: Chained) -> None:
        self._at = directories
        self._ours = ours
        self._chained = False
        self.problem = "not looked at yet"

    async def keep(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Never returns."""
        while True:
            await asyncio.to_thread(self.look)
            await sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Puts right what is not. Never raises for what it finds."""
        try:
            self._install_program()
            changed = self._install()
            problem = ""
        except BadConflist as error:
            changed, problem = False, str(error)
        except OSError as error:
            changed, problem = False, f"{error.filename or self._at.conf_dir}: {error.strerror}"
        if problem and problem != self.problem:
            _log.warning("CNI: our plugin is not in the chain: %s", problem)
        if changed:
            _log.warning("CNI: our plugin was put %s the chain", "back into" if self._chained else "into")
        self._chained = self._chained or changed
        self.problem = problem

    def remove(self, *, keep_program: bool = False) -> tuple[str, ...]:
        """Everything of ours goes; what was changed, one line each. `keep_program`: it stays for a runtime that still
        asks it at its pods' end, and answers without an agent. Raises OSError, BadConflist."""
        done: list[str] = []
        failures: list[OSError | BadConflist] = []
        for path in _files(self._at.conf_dir):
            try:
                if path.name == self._at.own_file:
                    path.unlink()
                    done.append(f"removed {path}")
                elif path.suffix == ".conflist" and holds_ours(text := _read(path)):
                    done.append(self._restored(path, text))
            except (
                OSError,
                BadConflist,
            ) as error:  # the others are taken out all the same: a pod starts by one of them
                failures.append(error)
        if failures:
            raise failures[0]  # and the program stays, for what still names it
        program = self._at.bin_dir / PLUGIN
        if program.exists() and not keep_program:
            program.unlink()
            done.append(f"removed {program}")
        return tuple(done)

    def _restored(self, path: Path, text: str) -> str:
        for single in (path.with_suffix(".conf"), path.with_suffix(".json")):
            aside = single.with_name(f"{single.name}{_ASIDE}")
            if aside.exists():
                aside.rename(single)
                path.unlink()
                return f"restored {single}"
        _write(path, without_ours(text))
        return f"took our plugin out of {path}"

    def _install_program(self) -> None:
        """A running plugin's file cannot be written to: the new one takes its place."""
        target = self._at.bin_dir / PLUGIN
        with contextlib.suppress(FileNotFoundError):
            if target.read_bytes() == self._at.plugin.read_bytes():
                return
        beside = target.with_name(f".{PLUGIN}.new")
        try:
            shutil.copyfile(self._at.plugin, beside)
            beside.chmod(0o755)
            beside.rename(target)
        finally:
            beside.unlink(missing_ok=True)

    def _install(self) -> bool:
        """Whether something was written."""
        names = [path.name for path in _files(self._at.conf_dir)]
        name = first_of(name for name in names if name != self._at.own_file)
        if name is None:
            raise BadConflist(f"{self._at.conf_dir}: holds no configuration yet; the cluster's CNI brings one")
        path = self._at.conf_dir / name
        text = _read(path)
        try:
            wanted = with_ours(text, self._ours)
        except BadConflist as error:
            raise BadConflist(f"{path}: {error}") from error
        if self._at.own_file:
            own = self._at.conf_dir / self._at.own_file
            if first_of((own.name, name)) != own.name:
                raise BadConflist(f"{own}: would not be the first, {name} is; choose a name that sorts before it")
            if own.exists() and _read(own) == wanted:
                return False
            _write(own, wanted)
            return True
        if wanted == text:
            return False
        if path.suffix == ".conflist":
            _write(path, wanted)
            return True
        listed = path.with_suffix(".conflist")
        if listed.exists() and not holds_ours(_read(listed)):
            raise BadConflist(f"{listed}: is another's, and ours would take its place: {name} cannot become a list")
        _write(listed, wanted)
        path.rename(path.with_name(f"{path.name}{_ASIDE}"))
        return True


def _files(directory: Path) -> list[Path]:
    """As libcni's ConfFiles has them (pkg/libcni/conf.go): by name, and no directories. Raises OSError."""
    return sorted(path for path in directory.iterdir() if not path.is_dir())


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise BadConflist(f"{path}: is longer than {_MAX_BYTES} bytes")
    return data.decode("utf-8", "replace")


def _write(path: Path, text: str) -> None:
    """0600: some hold a service account's token (istio-cni writes its own so)."""
    beside = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
