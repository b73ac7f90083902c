"""The table and docs/benchmarks.md, word for word where an operator reads figures."""

from tests.bench import report
from tests.bench.machine import Machine
from tests.bench.results import Fact, Ratio, Results
from tests.bench.rows import Comparison, Wanted
from tests.unit.bench.samples import ANY, with_rps

RESULTS = Results(
    rows=(("headgate-http", with_rps(34567.8)), ("haproxy", ANY)),
    ratios=(
        Ratio(Comparison("headgate-http", "haproxy", bound=0.8), 0.91, 0.85, 1.02),
        Ratio(Comparison("headgate-http", "haproxy", "proxy_cpu_us", Wanted.AT_MOST, 1.25), 1.31, 1.2, 1.4),
        Ratio(Comparison("headgate-http", "direct"), 0.5, 0.4, 0.6),
    ),
    footprint=(Fact("rules_p99_ms", "rules, p99", 1.234, "ms", 2.5), Fact("rules_p50_ms", "rules, p50", 1.1, "ms")),
    rounds=5,
    seconds_each=2,
    repeated=1,
)

TABLE = """\
row            requests/s  p50 µs  p99 µs  p50 µs, 1 conn.  proxy CPU µs/req.  system CPU µs/req.  new conn./s
headgate-http      34,568     500     900               60               20.0                45.5        4,000
haproxy             1,000     500     900               60               20.0                45.5        4,000

ratio                            median   min   max  wanted  met
headgate-http/haproxy              0.91  0.85  1.02   ≥ 0.8  yes
headgate-http/haproxy proxy_cpu    1.31  1.20  1.40  ≤ 1.25   NO
headgate-http/direct               0.50  0.40  0.60

beside the rows  measured    wanted  met
rules, p99        1.23 ms  ≤ 2.5 ms  yes
rules, p50        1.10 ms
"""

MACHINE = Machine("Some CPU @ 2.50GHz", 2, 24.1, "6.1.0", (("headgate", "0.1.0"), ("Envoy", "1.40.0")))


def test_the_table_shows_rows_ratios_and_extras_in_columns() -> None:
    assert report.table(RESULTS) == TABLE


def test_what_was_not_measured_has_no_table() -> None:
    nothing = Results((), (), RESULTS.footprint, 1, 1, 0)
    assert report.table(nothing).splitlines()[0].startswith("beside the rows")


def test_the_document_names_machine_versions_and_command() -> None:
    text = report.markdown(RESULTS, MACHINE, "make bench ROUNDS=5 SECONDS_EACH=2")
    lines = text.splitlines()
    assert "Written by `make bench ROUNDS=5 SECONDS_EACH=2`; the next run writes it anew." in lines
    assert "- Machine: Some CPU @ 2.50GHz, 2 cores, 24 GB; Linux 6.1.0." in lines
    assert "- Versions: headgate 0.1.0, Envoy 1.40.0." in lines
    assert "- 5 rounds, 2 s each load; 1 measurement repeated because the load generator gave no clean result." in lines


def test_the_document_holds_every_figure_of_the_table() -> None:
    lines = report.markdown(RESULTS, MACHINE, "make bench").splitlines()
    assert "| headgate-http | 34,568 | 500 | 900 | 60 | 20.0 | 45.5 | 4,000 |" in lines
    assert "| headgate-http/haproxy | 0.91 | 0.85 | 1.02 | ≥ 0.8 | yes |" in lines
    assert "| rules, p99 | 1.23 ms | ≤ 2.5 ms | yes |" in lines
