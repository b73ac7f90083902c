"""How a policy snapshot is said as rows: flat tuples, each small, that build it from what the hearer has already.

Every shared object of policy (a workload, an endpoint, a backend …) has a number, its *ref*. A row makes one object
from the refs of its parts, or sets one key of one of the snapshot's maps, or lets refs go. Flat tuples rather than the
frozen values themselves: a pickled slotted dataclass is restored field by field in Python, four times as slow.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, Final

from proxy.model.routing import (
    Backend,
    Endpoint,
    HttpRule,
    InboundPort,
    MissingBackend,
    RetryPolicy,
    ServiceName,
    ServicePort,
)
from proxy.model.workload import Workload

Row = tuple[Any, ...]
"""Its kind, then what that kind's entry below says."""

Shared = (
    Workload | ServiceName | Endpoint | Backend | MissingBackend | RetryPolicy | HttpRule | ServicePort | InboundPort
)
"""What has a ref: whatever is part of two things, or may stay the same while what holds it changes."""

PARTS: Final = 0
"""ref, parts: the next parts of an object that is too long for one row; its own row comes last."""
PARTS_OF: Final = 1
"""ref, other, start, stop: the next parts are those of the backend `other`, from start to before stop."""
WORKLOAD: Final = 2
"""ref, then the fields of Workload in order."""
SERVICE_NAME: Final = 3
"""ref, namespace, name, host"""
ENDPOINT: Final = 4
"""ref, host, port, workload"""
BACKEND: Final = 5
"""ref, service, port, subset, endpoints"""
MISSING_BACKEND: Final = 6
"""ref, service, port, subset, reason"""
RETRY: Final = 7
"""ref, attempts, retry_on (values), back_off_s"""
RULE: Final = 8
"""ref, name, retry, weights, backends"""
SERVICE_PORT: Final = 9
"""ref, service, port, protocol (value), all_endpoints, refused, rules"""
INBOUND_PORT: Final = 10
"""ref, service, protocol (value)"""
SET_SERVICE: Final = 11
"""host, port, service port; ref 0 here and below: the key is no longer there"""
SET_WORKLOAD: Final = 12
"""address, workload"""
SET_POD: Final = 13
"""namespace, pod name, workload"""
SET_INBOUND: Final = 14
"""host, port, inbound port"""
DROP: Final = 15
"""refs that nothing uses any more"""
ALIAS: Final = 16
"""ref, other: the object that is known as `other` (about to be dropped) is called `ref` from now on."""

PARTS_A_ROW: Final = 512
"""Longer tuples are built from several rows: 512 look-ups take some 0.1 ms."""
COST_A_SLICE: Final = 128
"""Rows of one slice, a row of many parts counting for several (`cost`). The dearest kind, a workload with ten labels,
takes 2 to 3 µs to unpickle and make (measured with 20,000 of them): a slice takes less than half a millisecond."""

workload_fields: Final = attrgetter(*Workload.__slots__)
"""All fields in order: one that is added to Workload travels by itself."""


def cost(row: Row) -> int:
    """How many plain rows this one is worth: one, and one more for each 16 parts or labels."""
    return 1 + sum(len(field) for field in row if type(field) is tuple) // 16


def slices(rows: Iterable[Row]) -> Iterator[tuple[Row, ...]]:
    """The rows in order, cut to what may be applied in one go: at most COST_A_SLICE, or a single row that costs more.

    Rows that set different maps never share a slice: the first of each copies its map.
    """
    cut: list[Row] = []
    total = 0
    for row in rows:
        price = cost(row)
        another_map = bool(cut) and row[0] != cut[-1][0] and row[0] >= SET_SERVICE
        if cut and (total + price > COST_A_SLICE or another_map):
            yield tuple(cut)
            cut, total = [], 0
        cut.append(row)
        total += price
    if cut:
        yield tuple(cut)
