"""Plain HTTP calls of an API server, by somebody: no client of ours between a test and the answer."""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
ANSWER_S: Final = 30.0
"""A real server beside other work."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    warnings: tuple[str, ...]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def version(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]


@dataclass(frozen=True)
class Caller:
    """`tls`: with whose certificate; `token`: or in whose name."""

    url: str
    tls: ssl.SSLContext
    token: str = ""

    def call(self, method: str, path: str, body: Any = None, content_type: str = JSON, **query: str | int) -> Answer:
        """`body`: a value, or bytes as they are."""
        connection = self._connected()
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, _with(path, query), data, self._headers(content_type))
            answer = connection.getresponse()
            text = answer.read()
            said = json.loads(text) if answer.headers.get_content_type() == JSON else text.decode()
            warnings = tuple(answer.headers.get_all("Warning") or ())
            return Answer(answer.status, said, warnings, dict(answer.headers))
        finally:
            connection.close()

    def get(self, path: str, **query: str | int) -> Answer:
        return self.call("GET", path, **query)

    def post(self, path: str, body: Any, **query: str | int) -> Answer:
        return self.call("POST", path, body, **query)

    def put(self, path: str, body: Any, **query: str | int) -> Answer:
        return self.call("PUT", path, body, **query)

    def patch(self, path: str, body: Any, content_type: str = MERGE, **query: str | int) -> Answer:
        return self.call("PATCH", path, body, content_type, **query)

    def delete(self, path: str, body: Any = None, **query: str | int) -> Answer:
        return self.call("DELETE", path, body, **query)

    def made(self, path: str, body: Any) -> dict[str, Any]:
        """Created, or the test is over."""
        answer = self.post(path, body)
        assert answer.status == 201, answer
        made: dict[str, Any] = answer.body
        return made

    @contextmanager
    def watching(self, path: str, **query: str | int) -> Iterator["Events"]:
        connection = self._connected()
        try:
            connection.request("GET", _with(path, {"watch": "true", **query}), headers=self._headers(JSON))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield Events(answer)
        finally:
            connection.close()

    def _connected(self) -> HTTPSConnection:
        address = urlsplit(self.url)
        return HTTPSConnection(address.hostname or "", address.port, timeout=ANSWER_S, context=self.tls)

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": JSON, "Content-Type": content_type}
        return {**headers, "Authorization": f"Bearer {self.token}"} if self.token else headers


class Events:
    """Of one watch, one after another."""

    def __init__(self, answer: HTTPResponse) -> None:
        self._answer = answer

    def next(self) -> dict[str, Any] | None:
        """None when the server has ended the watch."""
        line = self._answer.readline()
        told: dict[str, Any] | None = json.loads(line) if line else None
        return told

    def next_of(self, *kinds: str) -> dict[str, Any]:
        """The next event of one of these types; others are passed over."""
        while (event := self.next()) is not None:
            if event["type"] in kinds:
                return event
        raise AssertionError(f"the watch ended before any of {kinds}")

    def changes(self, count: int) -> list[tuple[str, str]]:
        """Type and name of the next ones, bookmarks aside."""
        found = [self.next_of("ADDED", "MODIFIED", "DELETED", "ERROR") for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in found]

    def heard_after_the_cut(self) -> list[dict[str, Any]]:
        """Whole events that still come. The cut itself shows as an error, or as an end."""
        heard = []
        with suppress(OSError, HTTPException, ValueError):
            heard += iter(self.next, None)
        return heard

    def rest(self) -> list[dict[str, Any]]:
        """Until the server ends it."""
        return list(iter(self.next, None))


def until(condition: Callable[[], bool], what: str, within_s: float = ANSWER_S) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def _with(path: str, query: dict[str, str | int]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
