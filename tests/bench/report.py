"""The figures as people read them: a table for the terminal, Markdown for docs/benchmarks.md. Pure."""

from collections.abc import Sequence
from typing import Final

from tests.bench.machine import Machine
from tests.bench.results import Fact, Ratio, Results
from tests.bench.rows import Sample

_HEADINGS: Final = (
    "row",
    "requests/s",
    "p50 µs",
    "p99 µs",
    "p50 µs, 1 conn.",
    "proxy CPU µs/req.",
    "system CPU µs/req.",
    "new conn./s",
)
_MET: Final = {True: "yes", False: "NO", None: ""}


def table(results: Results) -> str:
    """Everything measured, in columns."""
    parts = []
    if results.rows:
        parts.append(_columns([_HEADINGS, *(_row(name, sample) for name, sample in results.rows)]))
    if results.ratios:
        parts.append(_columns([("ratio", "median", "min", "max", "wanted", "met"), *map(_ratio, results.ratios)]))
    if results.footprint:
        parts.append(_columns([("beside the rows", "measured", "wanted", "met"), *map(_fact, results.footprint)]))
    return "\n".join(parts)


def markdown(results: Results, machine: Machine, command: str) -> str:
    """The whole of docs/benchmarks.md."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions)
    parts = [
        "# Benchmarks",
        "",
        f"Written by `{command}`; the next run writes it anew.",
        "",
        f"- Machine: {machine.cpu}, {machine.cores} cores, {machine.memory_gb:.0f} GB; Linux {machine.kernel}.",
        f"- Versions: {versions}.",
        f"- {_plural(results.rounds, 'round')}, {results.seconds_each} s each load; "
        f"{_plural(results.repeated, 'measurement')} repeated because the load generator gave no clean result.",
        "",
        _METHOD,
    ]
    if results.rows:
        parts += [
            "## Rows",
            "",
            "Medians over the rounds. Absolute figures belong to this machine and hour; compare by the ratios below.",
            "",
            _markdown_table([_HEADINGS, *(_row(name, sample) for name, sample in results.rows)]),
        ]
    if results.ratios:
        parts += [
            "## Ratios",
            "",
            "Paired within a round; median, least and greatest over the rounds. Without a name behind the pair:",
            "requests/s.",
            "",
            _markdown_table([("ratio", "median", "min", "max", "wanted", "met"), *map(_ratio, results.ratios)]),
        ]
    if results.footprint:
        parts += [
            "## Beside the rows",
            "",
            _EXTRAS,
            _markdown_table([("what", "measured", "wanted", "met"), *map(_fact, results.footprint)]),
        ]
    return "\n".join(parts).rstrip("\n") + "\n"


_METHOD: Final = """\
## Method

A client pod and a server pod on one lab node: network namespaces, veth pairs, one bridge. nginx answers with 128 bytes
(in the mix also 64 KiB) over kept connections; wrk asks with one thread and 32 connections, with one connection, and
with 32 connections that close after each request. Load and server share one core, the proxy has the other; every proxy
has one worker. Every proxy is reached by the same redirect rules, rendered from headgate's own plan, and the client
calls a Service address that nobody but the proxy answers. One hop: only the client's pod is enrolled. Two hops: both
pods are, and the same worker serves both.

Every proxy splits requests 90/10 between two ports of the server (the tcp rows and `direct` excepted), keeps
connections to it, logs nothing, and changes no header but hop-by-hop ones (Envoy adds x-forwarded-proto). headgate
counts its metrics as always. Peers' configurations: tests/bench/conf. Envoy marks its upstream sockets; HAProxy and
nginx are exempted from the rules by their user. `direct` has no rules and no connection tracking.

wrk repeats its heads byte for byte, and headgate does not parse a head again that equals the one before it on the same
connection (7 µs of Python a request); the mix changes from request to request and gains less (not measured apart).

The mix, in a fixed order: 4 GET, 2 POST of 1 KiB, 1 chunked POST of 1 KiB, 2 GET with 20 headers, 1 GET answered with
64 KiB. Each round runs every row once, beginning with another row; before the first, each row must answer rightly, in
the right shares, through its proxy. CPU of a proxy: all its processes.
"""

_EXTRAS: Final = """\
Each in labs of its own, once. Sustained: wrk with 32 connections at a time, closed after each request; Envoy
(tcp_proxy) is reached by the same rules, and inbound it connects from its own address, where headgate keeps the
client's. Many connections: kernel defaults, one client, one address and port. 250 pods: announced at once; their
namespaces deleted and as many new ones named to the agent at once. Idle connections: growth of the worker's resident
memory. Slow reader: 320 KiB/s; growth of the worker's peak, and the kernel's memory for its two sockets (ss -m). Policy
updates: 600 requests/s, windows of 3 s with and without updates in turn, median of five paired p99. Exclusions: 250
outbound and 250 inbound, ports and networks of both families; connect(2) and accept(2) of one thread, its CPU time a
connection, median of 1,200 pairs of batches. headgate has one worker where it is compared.
"""


def _row(name: str, sample: Sample) -> tuple[str, ...]:
    return (
        name,
        f"{sample.rps:,.0f}",
        f"{sample.p50_us:,.0f}",
        f"{sample.p99_us:,.0f}",
        f"{sample.p50_1conn_us:,.0f}",
        f"{sample.proxy_cpu_us:.1f}",
        f"{sample.system_cpu_us:.1f}",
        f"{sample.conn_per_s:,.0f}",
    )


def _ratio(ratio: Ratio) -> tuple[str, ...]:
    bound = ratio.comparison.bound
    wanted = "" if bound is None else f"{ratio.comparison.wanted.value} {bound:g}"
    return (
        ratio.comparison.name,
        f"{ratio.median:.2f}",
        f"{ratio.min:.2f}",
        f"{ratio.max:.2f}",
        wanted,
        _MET[ratio.met],
    )


def _fact(fact: Fact) -> tuple[str, ...]:
    wanted = "" if fact.bound is None else f"{fact.wanted.value} {fact.bound:g} {fact.unit}".rstrip()
    return fact.what, f"{_figure(fact.value)} {fact.unit}".rstrip(), wanted, _MET[fact.met]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == 0 else f"{value:.2f}"


def _columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ""
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], ruler, *lines[1:]))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
