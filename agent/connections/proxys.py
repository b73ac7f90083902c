"""What the node's proxy tells of its connections: GET /connections on its admin socket (proxy.supervisor.connections).

It is asked over a socket that another process made, so each line is read as a stranger's.
"""

import functools
import json
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path as FilePath
from typing import Any, Final

from agent.connections.values import Path, Place, ProxyConnection, Way
from agent.pods import IPAddress
from agent.printable import printable
from proxy.api.constants import PROXY_ADMIN_SOCKET

TIMEOUT_S: Final = 10.0
"""Between two pieces of the answer: above what the proxy allows a silent worker (1 s each, of eight)."""
_LONGEST_LINE: Final = 8192
"""Names of Kubernetes' objects have 253 characters at most; twelve fields of those."""

_PATHS: Final = {path.value: path for path in (Path.HTTP, Path.TCP, Path.DETECTING, Path.CLOSING, Path.IDLE)}


@dataclass(frozen=True, slots=True)
class Told:
    """`problems`: what of the answer is missing and why, in words."""

    connections: tuple[ProxyConnection, ...] = ()
    problems: tuple[str, ...] = ()


def ask(run_dir: FilePath, netns_cookie: int | None = None) -> Told:
    """Of one namespace, or of all. Never raises: without a proxy there is still much to show."""
    path = run_dir / PROXY_ADMIN_SOCKET
    connection = HTTPConnection("proxy", timeout=TIMEOUT_S)
    try:
        connection.sock = _connect(path)
        connection.request("GET", "/connections" + ("" if netns_cookie is None else f"?netns_cookie={netns_cookie}"))
        answer = connection.getresponse()
        if answer.status == 404:
            return Told(problems=(f"the proxy at {path} is older and tells no connections",))
        if answer.status != 200:
            return Told(problems=(f"the proxy at {path} answered {answer.status}",))
        return read(iter(lambda: answer.readline(_LONGEST_LINE), b""))
    except (FileNotFoundError, ConnectionRefusedError):
        return Told(problems=(f"no proxy at {path}: what it does with connections is not shown; see --run-dir",))
    except (OSError, HTTPException) as error:
        return Told(problems=(f"proxy at {path}: {printable(str(error) or type(error).__name__)}",))
    finally:
        connection.close()


def read(lines: Iterable[bytes]) -> Told:
    """What can be read of an answer."""
    told: list[ProxyConnection] = []
    problems: list[str] = []
    unread, ended = 0, False
    for line in lines:
        try:
            value = json.loads(line)
            if "end" in value:
                ended = True
                problems += _missing(value["end"])
            else:
                told.append(connection_of(value))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            unread += 1
    if unread:
        problems.append(f"{unread} lines of the proxy's answer cannot be read: is it another version?")
    if not ended:
        problems.append("the proxy's answer broke off: there may be more connections")
    return Told(tuple(told), tuple(problems))


def _missing(end: dict[str, Any]) -> Iterator[str]:
    if left_out := int(end["left_out"]):
        yield f"the proxy left {left_out} connections out: ask pod by pod"
    if silent := [int(index) for index in end["silent_workers"]]:
        workers = ", ".join(map(str, silent))
        yield f"worker {workers} of the proxy did not answer: its connections are shown as `redirect`"


def connection_of(value: dict[str, Any]) -> ProxyConnection:
    """Raises ValueError, TypeError or KeyError for what is not one."""
    original = _place(value["original_destination"])
    if original is None:
        raise ValueError("no original destination")
    return ProxyConnection(
        pod=_text(value["pod"]),
        netns_cookie=int(value["netns_cookie"]),
        way=Way(value["direction"]),
        path=_PATHS[value["protocol"]],
        original=original,
        client=_place(value["client"]),
        listener=_place(value["listener"]),
        upstream_from=_place(value["upstream_from"]),
        upstream=_place(value["upstream"]),
        service=_text(value["service"]),
        route=_text(value["route"]),
        workload=_text(value["workload"]),
        age_s=max(0.0, float(value["age_s"])),
        worker=int(value["worker"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _place(value: object) -> Place | None:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    if value is None:
        return None
    host, _, port = _text(value).rpartition(":")
    if not (port.isascii() and port.isdecimal()) or not 0 <= int(port) <= 65535:
        raise ValueError("no port")
    return _address(host), int(port)


@functools.lru_cache(maxsize=65536)
def _address(text: str) -> IPAddress:
    return ip_address(text.removeprefix("[").removesuffix("]"))


def _connect(path: FilePath) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection
