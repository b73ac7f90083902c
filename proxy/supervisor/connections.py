"""The living connections of all workers, for the admin socket: GET /connections[?pod=UID][&netns_cookie=N][&most=N].

One JSON object a line, one line a connection, and a last one {"end": …} which says what is missing. A worker is asked
when the one before has answered, and one question is answered at a time: what waits here to be read is bounded by
`most`, and the workers are not all kept busy at once.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Final

from proxy.model.living import LivingConnection
from proxy.supervisor.workers import Worker
from proxy.workerlink import ConnectionsTold, LivingConnections, ReportConnections

MOST: Final = 50_000
"""Connections told in one answer: some 20 MB of text. A worker's descriptors allow ten times as many (LimitNOFILE of
1,048,576 and two a connection); who has those asks pod by pod."""

SILENCE_S: Final = 1.0
"""Between two parts of a worker's answer; it has the next one ready a turn of its loop later."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. `pod`: uid. None: of all."""

    pod: str | None = None
    netns_cookie: int | None = None
    most: int = MOST


def wish_of(query: dict[str, str]) -> Wish:
    """Raises ValueError with words for who asked."""
    unknown = query.keys() - {"pod", "netns_cookie", "most"}
    if unknown:
        raise ValueError(f"unknown parameter {min(unknown)[:40]!r}: there are pod, netns_cookie and most")
    cookie = None if "netns_cookie" not in query else _number(query, "netns_cookie", (1 << 64) - 1)
    most = MOST if "most" not in query else _number(query, "most", MOST)
    return Wish(query.get("pod") or None, cookie, most)


def _number(query: dict[str, str], name: str, largest: int) -> int:
    text = query[name]
    if text.isascii() and text.isdecimal() and len(text) <= 20 and 0 < int(text) <= largest:
        return int(text)
    raise ValueError(f"{name}={text[:20]!r}: give a number from 1 to {largest}")


class Connections:
    """Asks workers and hears what they say. `note` and `worker_ended` are called by their owner."""

    def __init__(self, workers: Callable[[], list[Worker]]) -> None:
        self._workers = workers
        self._turn = asyncio.Lock()
        self._request_id = 0
        self._heard: asyncio.Queue[LivingConnections | ConnectionsTold | None] = asyncio.Queue()
        self._asked: int | None = None
        """Index of the worker that is answering."""

    @property
    def asking(self) -> bool:
        return self._asked is not None

    def note(self, worker: int, message: LivingConnections | ConnectionsTold) -> None:
        if worker == self._asked and message.request_id == self._request_id:
            self._heard.put_nowait(message)

    def worker_ended(self, worker: int) -> None:
        if worker == self._asked:
            self._heard.put_nowait(None)

    async def lines(self, wish: Wish) -> AsyncGenerator[bytes, None]:
        """Some lines at a time, the last one being the end."""
        async with self._turn:
            told, left_out = 0, 0
            silent: list[int] = []
            for worker in self._workers():
                if worker.pid is None:
                    silent.append(worker.index)
                    continue
                self._ask(worker, wish, wish.most - told)
                try:
                    while True:
                        message = await self._next()
                        if not isinstance(message, LivingConnections):
                            break
                        told += len(message.connections)
                        yield b"".join(_line(worker, one) for one in message.connections)
                finally:
                    self._asked = None
                if message is None:
                    silent.append(worker.index)
                else:
                    left_out += message.left_out
        yield _encoded({"end": {"told": told, "left_out": left_out, "silent_workers": silent}})

    def _ask(self, worker: Worker, wish: Wish, most: int) -> None:
        self._request_id += 1
        self._asked = worker.index
        self._heard = asyncio.Queue()
        worker.send(ReportConnections(self._request_id, most, wish.pod, wish.netns_cookie))

    async def _next(self) -> LivingConnections | ConnectionsTold | None:
        """None: the worker ended, or says nothing."""
        try:
            async with asyncio.timeout(SILENCE_S):
                return await self._heard.get()
        except TimeoutError:
            return None


def _line(worker: Worker, one: LivingConnection) -> bytes:
    return _encoded(
        {
            "pod": one.pod,
            "netns_cookie": one.netns_cookie,
            "worker": worker.index,
            "worker_pid": worker.pid,
            "direction": one.direction,
            "protocol": one.protocol,
            "client": _text(one.client),
            "listener": _text(one.listener),
            "original_destination": _text(one.original),
            "upstream_from": _text(one.upstream_from),
            "upstream": _text(one.upstream),
            "service": one.service,
            "route": one.route,
            "workload": one.workload,
            "age_s": round(one.age_s, 3),
        }
    )


def _text(address: object) -> str | None:
    return None if address is None else str(address)


def _encoded(value: dict[str, Any]) -> bytes:
    # Escaped to ASCII: foreign text reaches an operator's terminal from here.
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"
