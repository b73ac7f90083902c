"""What each client asked a server, in requests and in bytes, both ways: what docs/scale.md is measured with."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import web

from tests.kube.asked import Asked


class What(NamedTuple):
    """`client`: the user's name; `resource` with its group and subresource."""

    client: str
    verb: str
    resource: str


@dataclass(slots=True)
class Count:
    """Bytes with headers and the framing of chunks, without TLS. A watch counts while it lasts."""

    requests: int = 0
    received: int = 0
    sent: int = 0


class Traffic:
    def __init__(self) -> None:
        self._ended: defaultdict[What, Count] = defaultdict(Count)
        self._open: dict[int, tuple[What, list[web.StreamResponse]]] = {}
        self._next = 0

    @contextmanager
    def of(self, client: str, asked: Asked, request: web.Request) -> Iterator[list[web.StreamResponse]]:
        """Put the answer into what is given, as soon as there is one."""
        group = f".{asked.group}" if asked.group else ""
        what = What(client, asked.verb, f"{asked.resource}{group}/{asked.subresource}".strip("/") or asked.path)
        count = self._ended[what]
        count.requests += 1
        count.received += len(request.raw_path) + len(request.method) + len(" HTTP/1.1\r\n\r\n") + 1
        count.received += sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        count.received += request.content_length or 0
        answers: list[web.StreamResponse] = []
        self._next += 1
        mine = self._next
        self._open[mine] = (what, answers)
        try:
            yield answers
        finally:
            count.sent += sum(map(_sent, answers))
            del self._open[mine]

    def counts(self) -> dict[What, Count]:
        found = {what: Count(one.requests, one.received, one.sent) for what, one in self._ended.items()}
        for what, answers in self._open.values():
            found[what].sent += sum(map(_sent, answers))
        return found

    def total(self, client: str = "") -> Count:
        chosen = [count for what, count in self.counts().items() if not client or what.client == client]
        return Count(*(sum(getattr(one, name) for one in chosen) for name in ("requests", "received", "sent")))

    def forget(self) -> None:
        self._ended.clear()


def _sent(answer: web.StreamResponse) -> int:
    writer = answer._payload_writer  # body_length is known at the end only, and a watch may last for ever
    return answer.body_length if writer is None else int(writer.output_size)  # type: ignore[attr-defined]
