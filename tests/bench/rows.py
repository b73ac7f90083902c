"""What is measured: the rows, and the ratios between them that the product is judged by. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

WEB: Final = "10.96.0.10"
"""Service address that only a proxy answers: it is routed nowhere."""
FAR: Final = "10.96.0.11"


class Proxy(Enum):
    """Who serves the client's pod. One client pod each, so that none has to be restarted between two rows."""

    NONE = "client"
    HEADGATE = "client-headgate"
    ENVOY_HTTP = "client-envoy-http"
    ENVOY_TCP = "client-envoy-tcp"
    HAPROXY = "client-haproxy"
    NGINX = "client-nginx"

    @property
    def pod(self) -> str:
        return self.value


class Requests(Enum):
    """SMALL: GET, 128 bytes back. MIX: see mix.py."""

    SMALL = "small"
    MIX = "mix"


class Seen(Enum):
    """What headgate's own metrics must have counted for the row."""

    HTTP_OUT = 'istio_requests_total{reporter="source"'
    HTTP_IN = 'istio_requests_total{reporter="destination"'
    TCP_OUT = 'istio_tcp_connections_opened_total{reporter="source"'


@dataclass(frozen=True, slots=True)
class Row:
    """`host` and `port` are called from the proxy's client pod. `split`: answers come from v1 and v2, 90/10."""

    name: str
    proxy: Proxy
    host: str
    port: int
    requests: Requests = Requests.SMALL
    split: bool = True
    seen: tuple[Seen, ...] = ()


DIRECT_HOST: Final = "@server@"
"""Stands for the server pod's own address, which the lab gives."""

ROWS: Final = (
    Row("direct", Proxy.NONE, DIRECT_HOST, 8080, split=False),
    Row("headgate-http", Proxy.HEADGATE, WEB, 80, seen=(Seen.HTTP_OUT,)),
    Row("headgate-http-mix", Proxy.HEADGATE, WEB, 80, Requests.MIX, seen=(Seen.HTTP_OUT,)),
    Row("headgate-http-2hops", Proxy.HEADGATE, FAR, 80, seen=(Seen.HTTP_OUT, Seen.HTTP_IN)),
    Row("headgate-tcp", Proxy.HEADGATE, WEB, 9000, split=False, seen=(Seen.TCP_OUT,)),
    Row("envoy-http", Proxy.ENVOY_HTTP, WEB, 80),
    Row("envoy-http-mix", Proxy.ENVOY_HTTP, WEB, 80, Requests.MIX),
    Row("envoy-tcp", Proxy.ENVOY_TCP, WEB, 80, split=False),
    Row("haproxy", Proxy.HAPROXY, WEB, 80),
    Row("haproxy-mix", Proxy.HAPROXY, WEB, 80, Requests.MIX),
    Row("nginx", Proxy.NGINX, WEB, 80),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One row in one round, or the median of several. µs; CPU is µs a request: of all the proxy's processes, and of
    everything that ran on the two cores."""

    rps: float
    p50_us: float
    p99_us: float
    p50_1conn_us: float
    proxy_cpu_us: float
    system_cpu_us: float
    conn_per_s: float


METRICS: Final = tuple(field.name for field in fields(Sample))


class Wanted(Enum):
    """How a ratio is judged."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Comparison:
    """OURS / THEIRS of one metric, round by round. `bound` None: shown, not judged."""

    ours: str
    theirs: str
    metric: str = "rps"
    wanted: Wanted = Wanted.AT_LEAST
    bound: float | None = None

    @property
    def name(self) -> str:
        suffix = {"rps": "", "proxy_cpu_us": " proxy_cpu", "p50_1conn_us": " p50_1conn"}
        return f"{self.ours}/{self.theirs}{suffix.get(self.metric, f' {self.metric}')}"


# Bounds: the table of numbers that this part of the product promises.
COMPARISONS: Final = (
    Comparison("headgate-http", "envoy-http", bound=2.0),
    Comparison("headgate-http-mix", "envoy-http-mix", bound=2.0),
    Comparison("headgate-http", "haproxy", bound=0.8),
    Comparison("headgate-http-mix", "haproxy-mix", bound=0.8),
    Comparison("headgate-http", "haproxy", "proxy_cpu_us", Wanted.AT_MOST, 1.25),
    Comparison("headgate-http-mix", "haproxy-mix", "proxy_cpu_us", Wanted.AT_MOST, 1.5),
    Comparison("headgate-http", "haproxy", "p50_1conn_us", Wanted.AT_MOST, 1.2),
    Comparison("headgate-http-2hops", "headgate-http", bound=0.45),
    Comparison("headgate-http", "envoy-tcp", "conn_per_s", bound=1.0),
    Comparison("headgate-tcp", "envoy-tcp", "conn_per_s", bound=1.0),
    Comparison("headgate-tcp", "envoy-tcp"),
    Comparison("headgate-http", "nginx"),
    Comparison("headgate-http", "envoy-tcp"),
    Comparison("headgate-http", "direct"),
    Comparison("headgate-http", "haproxy", "p99_us", Wanted.AT_MOST),
    Comparison("headgate-http", "haproxy", "system_cpu_us", Wanted.AT_MOST),
    Comparison("headgate-http", "haproxy", "conn_per_s"),
)


class UnknownRow(ValueError):
    """A name that no row has."""


EXTRAS: Final = (
    "sustained",
    "many-connections",
    "footprint",
    "announce",
    "idle-agent",
    "replace-250",
    "idle-connections",
    "slow-reader",
    "policy-updates",
    "exclusions-500",
    "explain",
    "cni-add",
    "cluster",
)
"""Beside the rows, each measured in labs of its own (extras.py): figures that no load of two seconds shows."""


def select(text: str) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Rows and extras named in `text` (separated by commas or spaces), in the tables' order. Empty: everything.
    Raises UnknownRow."""
    names = text.replace(",", " ").split()
    if not names:
        return ROWS, EXTRAS
    known = [*(row.name for row in ROWS), *EXTRAS]
    for name in names:
        if name not in known:
            raise UnknownRow(f"ROWS: no row {name!r}; there are: {', '.join(known)}")
    return tuple(row for row in ROWS if row.name in names), tuple(name for name in EXTRAS if name in names)


def compared(rows: Sequence[Row]) -> tuple[Comparison, ...]:
    """The comparisons whose both sides are measured."""
    names = {row.name for row in rows}
    return tuple(one for one in COMPARISONS if {one.ours, one.theirs} <= names)
