"""What is remembered of labs between commands: a directory each below /run, and the kernel's own list of namespaces.

/run/headgate-lab/NAME/ holds `pids/` (see processes.py), `owner` (the process that must outlive the lab, absent for
`lab up`), `pods.yaml`, `config/`, `run/`, `log/` and the servers' files. A lab is found by either: the directory, or
namespaces named hg-NAME-*. Removing it needs only the name, so a crash at any instant leaves nothing that
`headgate lab down` cannot remove.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.lab import namespaces, processes
from agent.lab.errors import LabError
from agent.lab.namespaces import Netns

STATE_DIRECTORY: Final = Path("/run/headgate-lab")
DEFAULT_NAME: Final = "lab"
MARKER: Final = "HEADGATE_LAB"
"""Environment variable of each process of a lab: its name."""

_NAME: Final = re.compile(r"[a-z0-9]{1,16}")  # no '-': hg-a-b would be lab `a`, pod `b` and a part of lab `a-b` alike
_END_FIRST: Final = ("agent", "proxy")
"""Who ends before the servers, in this order: the agent takes its rules away while a proxy still answers it."""


@dataclass(frozen=True, slots=True)
class LabPaths:
    """Where the files of one lab are. LabError when the name is not 1 to 16 of a-z and 0-9."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise LabError(f"lab name {self.name!r}: use 1 to 16 of a-z and 0-9")

    @property
    def directory(self) -> Path:
        return STATE_DIRECTORY / self.name

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    @property
    def pids(self) -> Path:
        return self.directory / "pids"

    @property
    def owner(self) -> Path:
        return self.directory / "owner"

    @property
    def pods_file(self) -> Path:
        return self.directory / "pods.yaml"

    @property
    def prefix(self) -> str:
        return f"hg-{self.name}-"

    @property
    def node(self) -> Netns:
        return Netns(f"{self.prefix}node")

    def pod_netns(self, pod: str) -> Netns:
        return Netns(f"{self.prefix}{pod}")

    def exists(self) -> bool:
        return self.directory.exists() or bool(namespaces.with_prefix(self.prefix))


def claim(paths: LabPaths, *, owned: bool) -> None:
    """Makes the lab's directories; LabError when a lab of this name is there. `owned`: it ends with this process."""
    try:
        paths.directory.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise LabError(
            f"a lab named {paths.name!r} is up; `headgate lab down --name {paths.name}`, or choose another --name"
        ) from error
    except PermissionError as error:
        raise LabError(f"{paths.directory}: {error.strerror}; a lab needs root") from error
    me = processes.identify(os.getpid())
    if owned and me is not None:
        processes.remember(paths.owner, me)
    if namespaces.with_prefix(paths.prefix):
        remove(paths)
        raise LabError(f"namespaces of an earlier lab {paths.name!r} were left; they are removed now, try again")
    for directory in (paths.config, paths.run, paths.logs, paths.pids):
        directory.mkdir()


def remove(paths: LabPaths) -> None:
    """Ends every process of the lab and removes its namespaces and files. Quiet about what is gone already."""
    for name in _END_FIRST:
        identity = processes.recall(paths.pids / name)
        processes.end([identity] if identity is not None else [])
    found = namespaces.with_prefix(paths.prefix)
    remembered = [processes.recall(file) for file in paths.pids.iterdir()] if paths.pids.is_dir() else []
    processes.end([*(identity for identity in remembered if identity is not None), *processes.inside(found)])
    for netns in found:
        namespaces.delete(netns)
    shutil.rmtree(paths.directory, ignore_errors=True)
    with suppress(OSError):
        STATE_DIRECTORY.rmdir()  # only when this was the last lab


def known() -> list[LabPaths]:
    """All labs that have a directory, in order of name."""
    if not STATE_DIRECTORY.is_dir():
        return []
    return [LabPaths(path.name) for path in sorted(STATE_DIRECTORY.iterdir()) if _NAME.fullmatch(path.name)]


def remove_abandoned() -> list[str]:
    """Removes the labs whose owner has died without removing them (killed tests); returns their names."""
    abandoned = []
    for paths in known():
        if paths.owner.exists() and not processes.alive(processes.recall(paths.owner)):
            remove(paths)
            abandoned.append(paths.name)
    return abandoned
