"""Connections to ports on which nobody listens, to see who answers; and the pod's own routes.

`dial` is called in the node's namespace, `way_back` in the pod's; `answers` waits on the event loop.
"""

import asyncio
import errno
import socket
from collections.abc import Iterable
from typing import Final

from agent.explain.surroundings import Asked, RouteKind
from agent.kernel import fib
from agent.kernel.iproute import read_interface_addresses
from agent.kernel.netlink import Netlink
from agent.pods import IPAddress
from agent.pods.probe_path import Back

UNUSED_PORT: Final = 15003
"""Istio keeps 15000-15090 to itself (its "Ports used by Istio"), and serves nothing there."""
SILENCE_S: Final = 1.5
"""A lost SYN is sent again after one second (RFC 6298 2.1), so two of them have been in vain."""
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_KIND: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_ANSWERED: Final = frozenset({0, errno.ECONNREFUSED})


class Dialled:
    """Connections under way. To be closed."""

    __slots__ = ("_known", "_waiting")

    def __init__(self, known: dict[IPAddress, int], waiting: dict[IPAddress, socket.socket]) -> None:
        self._known = known
        self._waiting = waiting

    async def answers(self, timeout_s: float = SILENCE_S) -> frozenset[IPAddress]:
        """Who has refused or accepted; silence, and errors on the way, are no answer."""
        loop = asyncio.get_running_loop()
        done = {address: loop.create_future() for address in self._waiting}
        for address, sock in self._waiting.items():
            loop.add_writer(sock.fileno(), _ended, loop, sock, done[address])
        try:
            if done:
                await asyncio.wait(done.values(), timeout=timeout_s)
        finally:
            for sock in self._waiting.values():
                loop.remove_writer(sock.fileno())
        numbers = {**self._known, **{address: future.result() for address, future in done.items() if future.done()}}
        return frozenset(address for address, number in numbers.items() if number in _ANSWERED)

    def close(self) -> None:
        for sock in self._waiting.values():
            sock.close()


def _ended(loop: asyncio.AbstractEventLoop, sock: socket.socket, done: "asyncio.Future[int]") -> None:
    loop.remove_writer(sock.fileno())
    if not done.done():
        done.set_result(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def dial(addresses: Iterable[IPAddress], port: int) -> Dialled:
    """From the namespace that the calling thread is in. OSError when there is no socket to be had."""
    known: dict[IPAddress, int] = {}
    waiting: dict[IPAddress, socket.socket] = {}
    try:
        for address in addresses:
            sock = socket.socket(_FAMILIES[address.version], _KIND)
            waiting[address] = sock
            number = sock.connect_ex((str(address), port))
            if number != errno.EINPROGRESS:
                known[address] = number
                waiting.pop(address).close()
    except BaseException:
        for sock in waiting.values():
            sock.close()
        raise
    return Dialled(known, waiting)


def way_back(address: IPAddress, source: IPAddress) -> Back:
    """As the pod routes it now, what comes to `address` from `source`, and the answer. Raises OSError."""
    interfaces = fib.interfaces()
    names = interfaces.names
    index = next((one.interface for one in read_interface_addresses() if one.address == address), 0)
    with Netlink(socket.NETLINK_ROUTE) as netlink:
        answer = fib.decide(netlink, Asked(source, address), interfaces)
        if answer is None or answer.kind is not RouteKind.UNICAST:
            return Back.NO_ROUTE
        arriving = fib.decide(netlink, Asked(address, source, arrives_on=names.get(index)), interfaces)
    return Back.FILTERED if arriving is not None and arriving.kind is RouteKind.REFUSED else Back.ROUTED
