"""Before a row is measured: does it answer, and does it really pass through its proxy?

The Service address is routed nowhere, so an answer is the proxy's doing already; beside that the rule that led the
connection there has counted, both versions answer in their shares, and headgate's own metrics have counted the row.
"""

import re
import socket
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from typing import Final

from agent.lab.spec import NODE_ADDRESS4
from proxy.api.constants import PROXY_METRICS_PORT
from tests.bench.mix import SMALL_BYTES, Prepared, mix, small
from tests.bench.rows import Proxy, Requests, Row, Seen
from tests.bench.testbed import Testbed

SPLIT_REQUESTS: Final = 200
_SHARE: Final = (0.03, 0.22)
"""v2's share of SPLIT_REQUESTS at 10 %: ± 4 standard deviations of a random choice, cut at 0.03."""
TIMEOUT_S: Final = 10.0


class RowBroken(Exception):
    """The row does not do what it is measured for: nothing is measured."""


def verify(bed: Testbed, row: Row) -> None:
    """Raises RowBroken, naming the row and what was wrong."""
    captured, seen = bed.captured(row), _seen(bed, row)
    requests = _requests(bed, row)
    try:
        versions = _ask(bed, row, requests)
    except OSError as error:
        raise RowBroken(f"{row.name}: {bed.url(row)}: {error}\n{_log(bed, row)}") from error
    check_split(row, versions)
    check_captured(row, bed.captured(row) - captured)
    for kind, before in seen.items():
        after = _seen(bed, row)[kind]
        if after <= before:
            raise RowBroken(f"{row.name}: {kind.value}…}} did not count its requests: {before} before, {after} after")


def _requests(bed: Testbed, row: Row) -> tuple[Prepared, ...]:
    host = f"{bed.host(row)}:{row.port}"
    return (small(host),) if row.requests is Requests.SMALL else mix(host, close=False)


def _ask(bed: Testbed, row: Row, requests: tuple[Prepared, ...]) -> Counter[str]:
    """All requests in turn, SPLIT_REQUESTS in all, on one connection; which version answered the small ones."""
    versions: Counter[str] = Counter()
    with bed.client(row).netns.connect(bed.host(row), row.port, timeout_s=TIMEOUT_S) as connection:
        for turn in range(SPLIT_REQUESTS):
            request = requests[turn % len(requests)]
            connection.sendall(request.payload)
            status, body = _answer(connection)
            if status != 200 or len(body) != request.answer_bytes:
                raise RowBroken(
                    f"{row.name}: {request.name}: status {status} and {len(body)} bytes instead of 200 and "
                    f"{request.answer_bytes}: {body[:200]!r}"
                )
            if request.answer_bytes == SMALL_BYTES:
                versions[body[:2].decode("ascii", "replace")] += 1
    return versions


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    response = HTTPResponse(connection)
    try:
        response.begin()
        return response.status, response.read()
    except ValueError as error:
        raise OSError(f"no HTTP answer: {error}") from error
    finally:
        response.close()


def check_split(row: Row, versions: Counter[str]) -> None:
    share = versions["v2"] / versions.total()
    if row.split and not _SHARE[0] <= share <= _SHARE[1]:
        raise RowBroken(f"{row.name}: v2 answered {share:.0%} of the requests instead of 10 %: {dict(versions)}")


def check_captured(row: Row, captured: int) -> None:
    if row.proxy is Proxy.NONE and captured:
        raise RowBroken(f"{row.name}: its connection was led to a proxy")
    if row.proxy is not Proxy.NONE and captured != 1:
        raise RowBroken(f"{row.name}: rule out-capture counted {captured} connections instead of 1")


# ── headgate's own metrics ─────────────────────────────────────────────────────────────────────────────────────────
def _seen(bed: Testbed, row: Row) -> dict[Seen, float]:
    if not row.seen:
        return {}
    page = metrics_page(lambda: bed.lab.node.connect(NODE_ADDRESS4, PROXY_METRICS_PORT))
    return {kind: counted(page, kind.value) for kind in row.seen}


def metrics_page(connect: Callable[[], socket.socket]) -> str:
    connection = HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = connect()
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode("utf-8")
    finally:
        connection.close()


def counted(page: str, beginning: str) -> float:
    """Sum of the series whose line begins so."""
    values = re.findall(rf"^{re.escape(beginning)}[^\n]*\}} (\S+)$", page, re.MULTILINE)
    return sum(float(value) for value in values)


def _log(bed: Testbed, row: Row) -> str:
    name = "proxy" if row.proxy is Proxy.HEADGATE else f"{row.proxy.pod}.proxy"
    return bed.lab.log(name)[-1500:]
