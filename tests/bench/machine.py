"""What a figure is worth nothing without: the machine and the versions."""

import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench.testbed import envoy_path

_NUMBER = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True, slots=True)
class Machine:
    """Names and versions, each one line of text."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    versions: tuple[tuple[str, str], ...]


def describe() -> Machine:
    """Reads /proc and asks each program for its version; a program that is missing is told as such."""
    models = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    return Machine(
        cpu=models[0] if models else platform.machine(),
        cores=len(models),
        memory_gb=int(memory.group(1)) * 1024 / 1e9 if memory else 0.0,
        kernel=platform.release(),
        versions=(
            ("headgate", _headgate()),
            ("Python", platform.python_version()),
            ("Envoy", _asked(envoy_path(), "--version")),
            ("HAProxy", _asked("haproxy", "-v")),
            ("nginx", _asked("nginx", "-v")),
            ("wrk", _asked("wrk", "-v")),
            ("nft", _asked("nft", "--version")),
        ),
    )


def _headgate() -> str:
    try:
        return version("headgate")
    except PackageNotFoundError:
        return "not installed"


def _asked(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError as error:
        return f"missing ({error.strerror})"
    found = _NUMBER.search(done.stdout + done.stderr)
    return found.group() if found else "unknown"
