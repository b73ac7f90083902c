"""CPU and memory of processes and cores, as /proc tells (proc(5))."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK_US: Final = 1_000_000 / os.sysconf("SC_CLK_TCK")
_IDLE_FIELDS: Final = (3, 4)
"""idle and iowait of a cpu line."""
_BUSY_FIELDS: Final = 8
"""user, nice, system, idle, iowait, irq, softirq, steal; guest time is within user."""


class TooFewCores(Exception):
    """The load and the proxy each need a core of their own."""


@dataclass(frozen=True, slots=True)
class Cores:
    """`load`: the load and the server; `proxy`: whatever is measured."""

    load: int
    proxy: int


def two_cores() -> Cores:
    """The first two that this process may use. Raises TooFewCores."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise TooFewCores(f"the bench needs two cores, it may use {len(allowed)}: run it on a larger machine")
    return Cores(allowed[0], allowed[1])


def busy_us(stat: str, cores: Cores) -> float:
    """Time that the two cores were not idle, of /proc/stat's text."""
    total = 0
    for line in stat.splitlines():
        name, _, rest = line.partition(" ")
        if name in (f"cpu{cores.load}", f"cpu{cores.proxy}"):
            fields = [int(field) for field in rest.split()][:_BUSY_FIELDS]
            total += sum(value for index, value in enumerate(fields) if index not in _IDLE_FIELDS)
    return total * TICK_US


def process_us(stat: str) -> float:
    """utime + stime of all threads, of /proc/PID/stat's text."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


@dataclass(frozen=True, slots=True)
class Reading:
    """At one instant: of the proxy's processes, and of both cores."""

    proxy_us: float
    cores_us: float


def read(pids: tuple[int, ...], cores: Cores) -> Reading:
    """Raises FileNotFoundError when a process of the proxy has ended: then nothing that was measured counts."""
    proxy_us = sum(process_us(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")) for pid in pids)
    return Reading(proxy_us, busy_us(Path("/proc/stat").read_text(encoding="ascii"), cores))


def family(pid: int) -> tuple[int, ...]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return tuple(found)


def pin(pids: tuple[int, ...], core: int) -> None:
    """Every thread of these processes onto one core; what they start later inherits it."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), {core})


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """VmRSS or VmHWM of a process, in MB of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024 / 1e6
    raise KeyError(field)


def forget_peak(pid: int) -> None:
    """VmHWM begins anew at VmRSS (proc(5), clear_refs: 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def cpu_us(*pids: int) -> float:
    """CPU that these processes have used so far."""
    return sum(process_us(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")) for pid in pids)


def descriptors(pid: int) -> int:
    """Open in this process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def threads(pid: int) -> int:
    """Of this process."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
