"""`python -m tests.bench.flame`, by `make profile`: where the worker's time goes, as flame graphs in build/.

For each row a load that keeps its connections and one that opens a connection a request; py-spy samples the worker from
outside. Time in the kernel shows up on the line that called it. Exit status as of tests.bench.
"""

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.kernel.refused import KernelRefused
from agent.lab.errors import LabError
from tests.bench import load
from tests.bench.load import LoadFailed, LoadResult, LoadSpec
from tests.bench.measure import CONNECTIONS
from tests.bench.meter import TooFewCores
from tests.bench.rows import Proxy, Requests, Row, UnknownRow, select
from tests.bench.testbed import Testbed, testbed

OUT: Final = Path(__file__).parents[2] / "build"
DEFAULT_ROWS: Final = "headgate-http headgate-tcp"
MODES: Final = ("keep", "close")
SAMPLES_PER_S: Final = 250
"""py-spy stops the worker for each: at 250 it loses some 5 % of its time."""
SPARE_S: Final = 2
"""The load runs so much longer than the samples are taken: half before, half after."""


class SamplerFailed(Exception):
    """py-spy could not look into the worker."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make profile", description=__doc__)
    parser.add_argument("--rows", default=DEFAULT_ROWS, help=f"ROWS: of headgate, small requests ({DEFAULT_ROWS})")
    parser.add_argument("--seconds", type=int, default=5, help="SECONDS: of samples, each (5)")
    options = parser.parse_args(arguments)
    try:
        rows = _rows(options.rows)
        if os.geteuid() != 0:
            raise LabError("the profile builds a lab: run it as root")
        with testbed(rows, _say) as bed:
            for row in rows:
                for mode in MODES:
                    print(_profile(bed, row, mode, options.seconds), flush=True)
    except UnknownRow as error:
        print(error, file=sys.stderr)
        return 2
    except (LabError, KernelRefused, LoadFailed, SamplerFailed, TooFewCores) as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    return 0


def _rows(text: str) -> tuple[Row, ...]:
    rows, _ = select(text)
    for row in rows:
        if row.proxy is not Proxy.HEADGATE or row.requests is not Requests.SMALL:
            raise UnknownRow(f"ROWS: {row.name} is no row of headgate with small requests")
    return rows


def _profile(bed: Testbed, row: Row, mode: str, seconds: int) -> str:
    """The path of the flame graph, and what the load had meanwhile."""
    out = OUT / f"profile-{row.name}-{mode}.svg"
    _say(f"{row.name}, {mode}: {seconds} s")
    _, worker = bed.pids[Proxy.HEADGATE]
    spec = LoadSpec(bed.url(row), CONNECTIONS, seconds + SPARE_S, ("small", mode))
    sampler = threading.Timer(SPARE_S / 2, lambda: problems.extend(_sample(worker, seconds, out, f"{row.name} {mode}")))
    problems: list[str] = []
    sampler.start()
    try:
        result: LoadResult = load.run(bed.client(row), spec, bed.cores.load)
    finally:
        sampler.join()
    if problems:
        raise SamplerFailed(problems[0])
    return f"{out.relative_to(OUT.parent)}: {result.per_s:,.0f} requests/s while sampled"


def _sample(pid: int, seconds: int, out: Path, title: str) -> list[str]:
    """What went wrong."""
    out.parent.mkdir(exist_ok=True)
    py_spy = Path(sys.executable).parent / "py-spy"
    command = [py_spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(SAMPLES_PER_S)]
    command += ["--format", "flamegraph", "--output", out]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{title}: {error}"]
    if done.returncode or not out.exists():
        return [f"{title}: py-spy: exit {done.returncode}: {done.stderr.strip()[-500:]}"]
    return []


def _say(what: str) -> None:
    print(f"profile: {what}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
