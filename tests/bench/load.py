"""One run of wrk inside a pod."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.lab.node import LabPod

SCRIPT: Final = Path(__file__).parent / "conf" / "load.lua"
GRACE_S: Final = 15.0
"""After its seconds wrk only prints; a machine that cannot do that in time measures nothing."""


class LoadFailed(Exception):
    """wrk did not finish, or not every request was answered with a 2xx or 3xx. May be run again."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Latencies are wrk's own, over all connections."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int

    @property
    def per_s(self) -> float:
        return self.requests / self.duration_us * 1e6


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """`script_arguments` are load.lua's."""

    url: str
    connections: int
    seconds: int
    script_arguments: tuple[str, ...]


def run(pod: LabPod, spec: LoadSpec, core: int) -> LoadResult:
    """Raises LoadFailed."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{spec.connections}", f"-d{spec.seconds}s"]
    command += ["-s", str(SCRIPT), spec.url, "--", *spec.script_arguments]
    try:
        done = pod.run(command, timeout_s=spec.seconds + GRACE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"wrk did not end {GRACE_S:g} s after its time") from error
    if done.returncode:
        raise LoadFailed(f"wrk: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return parse(done.stdout)


def parse(output: str) -> LoadResult:
    """load.lua's line among wrk's own. Raises LoadFailed."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadFailed(f"wrk printed no result: {output.strip()[-500:]!r}")
    told = json.loads(lines[-1])
    failed = {kind: told[kind] for kind in ("connect", "read", "write", "status", "timeout") if told[kind]}
    if failed or not told["requests"]:
        raise LoadFailed(f"of {told['requests']} requests failed: {failed}")
    return LoadResult(told["requests"], told["duration_us"], told["p50_us"], told["p99_us"])
