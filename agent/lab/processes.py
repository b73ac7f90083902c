"""A lab's processes: started inside a namespace, remembered by pid and start time, ended for certain.

A process is never ended by its name, nor by a pid alone: the start time (proc(5), /proc/PID/stat field 22) is compared
after a pidfd is held, so a number that the kernel has given to somebody else in the meantime is left alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.lab.namespaces import Netns

TERM_GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL. The agent needs a fraction of it for the rules of a lab's pods."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Names one process for ever: its pid and when it started (clock ticks since boot)."""

    pid: int
    start_ticks: int


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now, or None: no such process, or one that has ended and waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command may hold spaces and brackets; it ends at the last ')'
    return None if fields[0] in "ZX" else ProcessId(pid, int(fields[19]))


def start(
    netns: Netns,
    command: Sequence[str],
    *,
    log: Path,
    pid_file: Path,
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a long-lived process in its own session (a Ctrl-C at the terminal is the lab's to handle, in its order)
    with output appended to `log`, and remembers it in `pid_file`. OSError when the command cannot start."""
    with log.open("ab") as output:
        process: subprocess.Popen[bytes] = netns.popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        )
    identity = identify(process.pid)
    if identity is not None:
        remember(pid_file, identity)
    return process


def remember(pid_file: Path, identity: ProcessId) -> None:
    """Writes "PID START-TICKS"."""
    pid_file.write_text(f"{identity.pid} {identity.start_ticks}\n", encoding="ascii")


def recall(pid_file: Path) -> ProcessId | None:
    """What `remember` wrote; None when there is no such file or it was cut short by a crash."""
    try:
        pid, start_ticks = pid_file.read_text(encoding="ascii").split()
        return ProcessId(int(pid), int(start_ticks))
    except (FileNotFoundError, ValueError):
        return None


def alive(identity: ProcessId | None) -> bool:
    """Whether exactly this process still runs."""
    return identity is not None and identify(identity.pid) == identity


def inside(namespaces: Iterable[Netns]) -> list[ProcessId]:
    """The processes that live in one of these namespaces, whoever started them; never the caller."""
    wanted: set[tuple[int, int]] = set()
    for netns in namespaces:
        with suppress(FileNotFoundError):
            wanted.add(netns.identity)
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal() or int(directory.name) == os.getpid():
            continue
        with suppress(OSError):
            status = (directory / "ns/net").stat()
            identity = identify(int(directory.name))
            if (status.st_dev, status.st_ino) in wanted and identity is not None:
                found.append(identity)
    return found


def children(pid: int) -> tuple[int, ...]:
    """Pids of the living children of a process, whichever of its threads started them; none when it is gone."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return tuple(child for child in found if identify(child) is not None)


def end(identities: Iterable[ProcessId], grace_s: float = TERM_GRACE_S) -> None:
    """SIGTERM to all, SIGKILL to what is left after the grace; returns when all have ended."""
    held = [descriptor for identity in identities if (descriptor := _hold(identity)) is not None]
    try:
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, TERM_GRACE_S)):
            for descriptor in held:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
            if _wait(held, patience_s):
                return
    finally:
        for descriptor in held:
            os.close(descriptor)


def _hold(identity: ProcessId) -> int | None:
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError:
        return None
    if identify(identity.pid) == identity:
        return descriptor
    os.close(descriptor)
    return None


def _wait(descriptors: Sequence[int], patience_s: float) -> bool:
    """Whether all ended in time: a pidfd becomes readable when its process ends, pidfd_open(2)."""
    deadline = time.monotonic() + patience_s
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = set(descriptors)
    while left:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            return False
        for descriptor, _ in poll.poll(remaining_s * 1000):
            poll.unregister(descriptor)
            left.discard(descriptor)
    return True
