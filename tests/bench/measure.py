"""The rounds: every round runs every row once, each round beginning with another row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import load, meter
from tests.bench.load import LoadFailed, LoadResult, LoadSpec
from tests.bench.mix import as_file, mix
from tests.bench.rows import Proxy, Requests, Row, Sample
from tests.bench.testbed import Testbed

CONNECTIONS: Final = 32
_KEEP, _CLOSE = "keep", "close"
_TRIES: Final = 3
"""wrk sometimes ends without a result, whatever it talks to (a few of several hundred runs)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each of the three loads of a row runs, how often all rows are run, and how long what is sustained."""

    rounds: int
    seconds_each: int
    seconds: int = 60


@dataclass(slots=True)
class Measured:
    """Samples by row, one a round, in the order of the rounds."""

    samples: dict[str, list[Sample]]
    repeated: int = 0


def measure(bed: Testbed, rows: Sequence[Row], plan: Plan, say: Callable[[str], None]) -> Measured:
    """Raises LoadFailed when a row fails time and again."""
    _write_mixes(bed, rows)
    measured = Measured({row.name: [] for row in rows})
    for turn in range(plan.rounds):
        for place in range(len(rows)):
            row = rows[(turn + place) % len(rows)]
            say(f"round {turn + 1} of {plan.rounds}, {place + 1} of {len(rows)}: {row.name}")
            measured.samples[row.name].append(_sample(bed, row, plan.seconds_each, measured))
    return measured


def _sample(bed: Testbed, row: Row, seconds: int, measured: Measured) -> Sample:
    pids = bed.pids.get(row.proxy, ())
    (before, after), busy = _loaded(bed, row, _spec(bed, row, CONNECTIONS, seconds, _KEEP), pids, measured)
    _, single = _loaded(bed, row, _spec(bed, row, 1, seconds, _KEEP), pids, measured)
    _, closing = _loaded(bed, row, _spec(bed, row, CONNECTIONS, seconds, _CLOSE), pids, measured)
    return Sample(
        rps=busy.per_s,
        p50_us=busy.p50_us,
        p99_us=busy.p99_us,
        p50_1conn_us=single.p50_us,
        proxy_cpu_us=(after.proxy_us - before.proxy_us) / busy.requests,
        system_cpu_us=(after.cores_us - before.cores_us) / busy.requests,
        conn_per_s=closing.per_s,
    )


def _loaded(
    bed: Testbed, row: Row, spec: LoadSpec, pids: tuple[int, ...], measured: Measured
) -> tuple[tuple[meter.Reading, meter.Reading], LoadResult]:
    for left in reversed(range(_TRIES)):
        before = meter.read(pids, bed.cores)
        try:
            result = load.run(bed.client(row), spec, bed.cores.load)
        except LoadFailed as failed:
            if not left:
                raise LoadFailed(
                    f"{row.name}: {spec.connections} connections, {spec.script_arguments}: {failed}"
                ) from failed
            measured.repeated += 1
            continue
        after = meter.read(pids, bed.cores)
        if row.proxy is not Proxy.NONE and after.proxy_us <= before.proxy_us:
            raise LoadFailed(f"{row.name}: its proxy used no CPU: the load went past it")
        return (before, after), result
    raise AssertionError("unreachable")


def _spec(bed: Testbed, row: Row, connections: int, seconds: int, mode: str) -> LoadSpec:
    arguments: tuple[str, ...] = (row.requests.value, mode)
    if row.requests is Requests.MIX:
        arguments += (str(_mix_file(bed, row, mode)),)
    return LoadSpec(bed.url(row), connections, seconds, arguments)


def _mix_file(bed: Testbed, row: Row, mode: str) -> Path:
    return bed.lab.paths.directory / f"{row.name}.{mode}"


def _write_mixes(bed: Testbed, rows: Sequence[Row]) -> None:
    for row in rows:
        if row.requests is Requests.MIX:
            for mode in (_KEEP, _CLOSE):
                requests = mix(f"{bed.host(row)}:{row.port}", close=mode == _CLOSE)
                _mix_file(bed, row, mode).write_bytes(as_file(requests))
