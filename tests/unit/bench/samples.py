"""A sample with one figure that matters."""

from dataclasses import replace

from tests.bench.rows import Sample

ANY = Sample(
    rps=1000.0, p50_us=500.0, p99_us=900.0, p50_1conn_us=60.0, proxy_cpu_us=20.0, system_cpu_us=45.5, conn_per_s=4000.0
)


def with_rps(rps: float) -> Sample:
    return replace(ANY, rps=rps)
