"""Asks agent and proxy what they know, as an operator's tool would: HTTP over their admin sockets and health ports."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 5.0


class AdminError(Exception):
    """Nobody answers there, or not yet, or not with what was asked for. Retry until a deadline of your own."""


def get_json(socket_path: Path, path: str, *, method: str = "GET", timeout_s: float = TIMEOUT_S) -> Any:
    """The JSON that an admin socket answers. AdminError unless it is a 200."""
    status, body = _ask(lambda: _unix(socket_path, timeout_s), method, path)
    if status != 200:
        raise AdminError(f"{method} {path} on {socket_path}: status {status}: {body[:500]!r}")
    try:
        return json.loads(body)
    except ValueError as error:
        raise AdminError(f"{method} {path} on {socket_path}: not JSON: {body[:200]!r}") from error


def get_status(connect: Callable[[], socket.socket], path: str) -> int:
    """The status of GET `path` on a connection that `connect` opens. AdminError when nobody answers."""
    return _ask(connect, "GET", path)[0]


def _ask(connect: Callable[[], socket.socket], method: str, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection("localhost", timeout=TIMEOUT_S)
    try:
        connection.sock = connect()
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException) as error:
        raise AdminError(f"{method} {path}: {error}") from error
    finally:
        connection.close()


def _unix(path: Path, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection
