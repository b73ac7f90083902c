"""In-place upgrade: a new proxy on the run directory of a running one asks that one to stop accepting.

Both serve the same listeners by then (the agent's store gave them to the new one), so no connection meets a moment
without a proxy: what is in the kernel's queue is accepted by whoever is left.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp

from proxy.errors import CannotStart, printable

ANSWER_S: Final = 5.0
"""The old one answers as soon as its listeners are closed: between two turns of its loop. As long as the agent waits
for a proxy's answer (zds.REQUEST_TIMEOUT_S)."""
ALL_PODS_S: Final = 15.0
"""How long the old one may serve a pod that the new one does not: the agent announces a refused pod again each 5 s."""
PORTS_FREE_S: Final = 5.0
"""How long the old one's ports may stay taken after it has answered, or was killed instead: a process's end."""
TRY_AGAIN_S: Final = 0.05


def lives(admin_socket: Path) -> bool:
    """Whether a proxy answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(admin_socket))
        except BlockingIOError:
            return True  # its queue is full: somebody lives there, though badly
        except OSError:
            return False
    return True


async def ask_to_drain(admin_socket: Path) -> None:
    """Returns when the proxy there has stopped accepting and has freed its ports; at once when it has ended by itself.

    Raises CannotStart when it lives and does not do it: nothing has changed then as far as can be known.
    """
    await _ask(admin_socket, "POST", "/drain")


async def _ask(admin_socket: Path, method: str, path: str) -> bytes | None:
    """The answer's body; None when nobody is there, or no longer."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(admin_socket)), timeout=timeout) as session,
            session.request(method, f"http://proxy{path}") as answer,
        ):
            body = await answer.read()
    except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        return None
    except TimeoutError:
        raise CannotStart(
            f"the running proxy on {admin_socket} has not answered within {ANSWER_S:g} s: it goes on as it is; "
            "end it, then start without --take-over"
        ) from None
    except aiohttp.ClientError as error:
        raise CannotStart(f"the running proxy on {admin_socket}: {printable(str(error))}") from error
    if answer.status != 200:
        text = printable(body.decode("utf-8", "replace"))
        raise CannotStart(
            f"the running proxy on {admin_socket} cannot hand over ({answer.status}: {text}): it is another version; "
            "end it, then start without --take-over"
        )
    return body


async def served_by(admin_socket: Path) -> frozenset[str]:
    """The uids of the pods that the proxy there serves; none when it has ended. Raises CannotStart as ask_to_drain."""
    answer = await _ask(admin_socket, "GET", "/pods")
    if answer is None:
        return frozenset()
    try:
        return frozenset(str(pod["uid"]) for pod in json.loads(answer) if pod["state"] == "served")
    except (ValueError, TypeError, KeyError) as error:
        raise CannotStart(
            f"the running proxy on {admin_socket} tells its pods in another way: it is another version; end it, then "
            "start without --take-over"
        ) from error


async def until_all_are_served(
    admin_socket: Path, served: Callable[[], frozenset[str]], refusals: Callable[[], str]
) -> None:
    """Returns when each pod that the proxy there serves is among `served`.

    Raises CannotStart, with the `refusals`, when that does not come about: without the agent's store its listeners
    cannot be had."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + ALL_PODS_S
    while missing := await served_by(admin_socket) - served():
        if loop.time() >= ends_s:
            raise CannotStart(
                f"{len(missing)} pods stay with the running proxy on {admin_socket}, which goes on as it is: "
                f"{refusals() or 'the agent has not announced them here'}; only an agent of headgate can hand over its "
                "listeners (fds.sock): else end it, then start without --take-over"
            )
        await asyncio.sleep(TRY_AGAIN_S)


async def bind_when_free(start: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> None:
    """`start`, tried again while something is still taken. Raises its CannotStart after PORTS_FREE_S."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + PORTS_FREE_S
    while True:
        try:
            return await start()
        except CannotStart:
            await close()
            if loop.time() >= ends_s:
                raise
        await asyncio.sleep(TRY_AGAIN_S)
