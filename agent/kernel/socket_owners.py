"""Which processes hold sockets: one walk over all descriptors of the machine that are ours to read, however many."""

import os
import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kernel.sock_diag import Listener
from agent.printable import printable

_SOCKET_LINK: Final = re.compile(r"socket:\[([0-9]+)\]")
_COMMAND_CHARACTERS: Final = 64
_CAP_SYS_PTRACE: Final = 19  # linux/capability.h


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """A process that holds a socket; `command` is its own claim (comm), made printable."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class Owners:
    """By inode, the process that began first; a socket may be in several. `refused`: processes whose descriptors are
    not ours to read (ptrace(2), PTRACE_MODE_READ: another user's need CAP_SYS_PTRACE), so that some may be missing;
    `privileged`: that capability is there, and does not help."""

    by_inode: dict[int, SocketOwner]
    refused: int
    privileged: bool = True


def owners_of(inodes: Set[int], proc: Path = Path("/proc")) -> Owners:
    """Ends as soon as all are found. Not of one namespace's processes only: a proxy holds sockets of many."""
    wanted = set(inodes) - {0}
    found: dict[int, SocketOwner] = {}
    refused = 0
    try:
        pids = _oldest_first(proc)
    except OSError:
        return Owners({}, 1, privileged=False)
    for pid in pids:
        if not wanted:
            break
        try:
            held = wanted & _sockets_of(f"{proc}/{pid}/fd")
        except PermissionError:
            refused += 1
            continue
        except OSError:
            continue  # it ended meanwhile
        if held:
            owner = SocketOwner(pid, _command(proc / str(pid) / "comm"))
            found.update(dict.fromkeys(held, owner))
            wanted -= held
    return Owners(found, refused, _is_privileged(proc))


def owner_of(listener: Listener, proc: Path = Path("/proc")) -> SocketOwner | None:
    """Of the processes that hold a listener of the calling thread's network namespace, the one that began first; None
    when none can be told. `proc`: the node's. For a message to a person, never for a decision.

    Root without CAP_DAC_READ_SEARCH cannot list another user's descriptors (proc(5), /proc/PID/fd), and a name is not
    worth that capability. Who runs in this namespace as the socket's user is told instead, if all of them call
    themselves the same.
    """
    found = owners_of({listener.inode}, proc)
    if found.refused and listener.inode not in found.by_inode:
        return _by_user(listener.uid, proc)
    return found.by_inode.get(listener.inode)


def _by_user(uid: int, proc: Path) -> SocketOwner | None:
    here = Path("/proc/thread-self/ns/net").stat()
    found: list[SocketOwner] = []
    for pid in _oldest_first(proc):
        process = proc / str(pid)
        try:
            is_here = os.path.samestat((process / "ns/net").stat(), here)
            if is_here and process.stat().st_uid == uid:
                found.append(SocketOwner(pid, _command(process / "comm")))
        except OSError:
            continue  # it ended meanwhile
    return found[0] if len({owner.command for owner in found}) == 1 else None


def _oldest_first(proc: Path) -> list[int]:
    """Numbers begin anew at pid_max, so that a worker may have a lower one than who started it. Raises OSError."""
    pids = [int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()]
    return sorted(pids, key=lambda pid: (_began(proc, pid), pid))


def _began(proc: Path, pid: int) -> int:
    """proc(5), /proc/PID/stat: starttime, the twentieth field behind the command, which may hold brackets."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:  # noqa: PTH123 - a thousand of them
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _sockets_of(directory: str) -> set[int]:
    """Raises OSError."""
    sockets = set()
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                link = os.readlink(entry.path)  # noqa: PTH115 - of 60,000 of them, a Path each takes half the time
            except FileNotFoundError:
                continue  # closed meanwhile
            if (named := _SOCKET_LINK.fullmatch(link)) is not None:
                sockets.add(int(named[1]))
    return sockets


def _is_privileged(proc: Path) -> bool:
    """proc(5), /proc/PID/status: CapEff."""
    try:
        status = (proc / "self/status").read_text()
    except OSError:
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_PTRACE & 1)


def _command(comm: Path) -> str:
    """Its own claim, made printable; empty when it has ended."""
    try:
        text = comm.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
    return printable(text.removesuffix("\n"), _COMMAND_CHARACTERS)
