"""A process as the kernel shows it (proc(5))."""

import os
import re
from pathlib import Path

from agent.lab.namespaces import Netns


def restart_peak_memory(pid: int) -> int:
    """Sets the peak to what is used now (clear_refs 5); bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_memory(pid)


def peak_memory(pid: int) -> int:
    """Resident set at its largest; bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def processor_time_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state(pid: int) -> str:
    """R, S, T …"""
    return _stat(pid)[0]


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def kernel_memory(netns: Netns, pid: int) -> int:
    """Bytes that the kernel holds for the TCP sockets of a process in a namespace: received and not read, sent and not
    acknowledged, with the kernel's own overhead (ss(8): skmem r and w)."""
    lines = netns.run(["ss", "-tnpmO"]).stdout.splitlines()
    ours = [line for line in lines if f"pid={pid}," in line]
    return sum(int(size) for line in ours for size in re.findall(r"[(,][rw](\d+)", line.partition("skmem:")[2]))


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
