"""`python -m tests.bench`, by `make bench`: measure, print, write docs/benchmarks.md and build/bench.json.

Exit status: 0 measured (whatever the figures); 1 a row does not do what it should; 2 wrong usage; 130 interrupted.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from agent.kernel.refused import KernelRefused
from agent.lab.errors import LabError
from tests.bench import extras, machine, report, results
from tests.bench.load import LoadFailed
from tests.bench.measure import Measured, Plan, measure
from tests.bench.meter import TooFewCores
from tests.bench.results import Results
from tests.bench.rows import EXTRAS, Row, UnknownRow, compared, select
from tests.bench.testbed import testbed
from tests.bench.verify import RowBroken, verify

ROOT: Final = Path(__file__).parents[2]
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    progress = Progress()
    try:
        rows, extra = select(options.rows)
        if os.geteuid() != 0:
            raise LabError("the bench builds a lab: run it as root")
        for number in _ENDING:
            signal.signal(number, _interrupted)
        found = _run(rows, extra, Plan(options.rounds, options.seconds_each, options.seconds), progress)
    except UnknownRow as error:
        print(error, file=sys.stderr)
        return 2
    except (LabError, KernelRefused, RowBroken, LoadFailed, TooFewCores) as error:
        progress.end()
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.end()
        print("interrupted; everything made is removed, nothing is written", file=sys.stderr)
        return 130
    progress.end()
    print(report.table(found), end="")
    _write(found, _command(options))
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=_positive, default=5, help="ROUNDS: how often every row is run (5)")
    parser.add_argument(
        "--seconds-each", type=_positive, default=1, help="SECONDS_EACH: of each of a row's 3 loads (1)"
    )
    parser.add_argument("--rows", default="", help=f"ROWS: a subset, separated by commas; also {', '.join(EXTRAS)}")
    parser.add_argument(
        "--seconds", type=_positive, default=60, help="SECONDS: of a sustained load and of idling, each (60)"
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least 1 is needed")
    return int(text)


def _run(rows: tuple[Row, ...], extra: tuple[str, ...], plan: Plan, progress: "Progress") -> Results:
    measured = Measured({})
    if rows:
        with testbed(rows, progress.say) as bed:
            for row in rows:
                progress.say(f"verifying {row.name}")
                verify(bed, row)
            measured = measure(bed, rows, plan, progress.say)
    return Results(
        tuple((row.name, results.medians(measured.samples[row.name])) for row in rows),
        results.ratios(measured.samples, compared(rows)),
        extras.measure(extra, plan, progress.say),
        plan.rounds,
        plan.seconds_each,
        measured.repeated,
    )


def _write(found: Results, command: str) -> None:
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "bench.json").write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    (ROOT / "docs" / "benchmarks.md").write_text(report.markdown(found, machine.describe(), command), encoding="utf-8")
    print("written: docs/benchmarks.md, build/bench.json", file=sys.stderr)


def _command(options: argparse.Namespace) -> str:
    rows = f" ROWS={','.join(options.rows.replace(',', ' ').split())}" if options.rows else ""
    return f"make bench ROUNDS={options.rounds} SECONDS_EACH={options.seconds_each} SECONDS={options.seconds}{rows}"


class Progress:
    """One line on a terminal, rewritten as the work goes on; nothing in a pipe."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._since_s = time.monotonic()

    def say(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{time.monotonic() - self._since_s:5.0f} s  {text}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """The first one leads to the removal of all that was made; a second one must not cut that short."""
    for ignored in _ENDING:
        signal.signal(ignored, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
