"""What `rules verify` shows of its cells, and listeners such as a proxy holds meanwhile."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from tests.netns.rules.here import Here


def titles(shown: dict[str, Any], *results: str) -> set[str]:
    """Sender, what and family of the cells with such a result."""
    return {f"{c['sender']} to {c['name']} {c['family']}" for c in shown["cells"] if c["result"] in results}


@contextlib.contextmanager
def listening(here: Here, *ports: int) -> Iterator[None]:
    """As a proxy holds them."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                stack.enter_context(here.pod.run(listen, family, address, port))
        yield


def listen(family: int, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    sock.listen(64)
    return sock
