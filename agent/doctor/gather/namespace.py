"""One network namespace after another, each by a thread that goes in: what rules, sockets and switches there are."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from agent.doctor.facts import NODE, Listening, Namespace, Pod
from agent.doctor.findings import Unseen
from agent.doctor.gather import rules, sysctls, tracking
from agent.doctor.gather.alike import Alike
from agent.kernel import sock_diag
from agent.kernel.netns import NetnsRefused, enter, open_netns
from agent.kernel.refused import KernelRefused
from agent.pods import NetnsId
from agent.printable import printable

T = TypeVar("T")

THREADS: Final = 4
"""As agent.kernel.netns.THREADS: more take no less time, and memory."""
_NO_ROOT: Final = "; needs root, or CAP_NET_ADMIN there (CAP_SYS_ADMIN to enter it)"
_REASON_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look, and whose it is. `expected`: which namespace it must be; a path may pass to another pod."""

    where: str
    path: Path
    pod: Pod | None = None
    expected: NetnsId | None = None


@dataclass(slots=True)
class Looked:
    """`unseen` in no order. `ids`: of the namespaces that could be entered."""

    namespaces: list[Namespace] = field(default_factory=list)
    ids: dict[NetnsId, str] = field(default_factory=dict)
    unseen: list[Unseen] = field(default_factory=list)


def look(places: Iterable[Place], alike: Alike, threads: int = THREADS) -> Looked:
    """In the order of `places`. What cannot be entered or read is told, and never ends the look."""
    waiting = list(enumerate(places))
    found: dict[int, Namespace] = {}
    looked = Looked()
    queue = iter(waiting)
    lock = threading.Lock()
    raised: list[BaseException] = []

    def work() -> None:  # ends where it went: no way back has to be found
        try:
            while True:
                with lock:
                    number, place = next(queue, (-1, None))
                if place is None:
                    return
                seen = _visited(place, looked, alike)
                if seen is not None:
                    found[number] = seen
        except BaseException as error:  # the caller's to know: what this thread has not seen must not pass for well
            raised.append(error)

    workers = [threading.Thread(target=work, name="doctor") for _ in range(min(threads, len(waiting)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if raised:
        raise raised[0]
    looked.namespaces = [found[number] for number, _ in waiting if number in found]
    return looked


def _visited(place: Place, looked: Looked, alike: Alike) -> Namespace | None:
    try:
        with open_netns(place.path, place.expected, allow_own=True) as netns:
            enter(netns.fd)
            looked.ids[netns.id] = place.where
        return here(place.where, place.pod, looked.unseen, alike)
    except (NetnsRefused, OSError) as error:
        looked.unseen.append(Unseen("everything", place.where, reason_of(error)))
        return None


def here(where: str, pod: Pod | None, unseen: list[Unseen], alike: Alike) -> Namespace:
    """Of the namespace that the calling thread is in."""

    def tried(what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (OSError, KernelRefused, ValueError) as error:
            unseen.append(Unseen(what, where, reason_of(error)))
            return None

    held = tried("rules", lambda: rules.rules(alike))
    if held is not None:
        unseen += (Unseen("rules", where, reason) for reason in held.inventory.unread)
    return Namespace(
        where,
        pod,
        held,
        tried("interfaces", sysctls.interfaces),
        tried("conntrack", tracking.tracking),
        None if where == NODE else tried("listeners", _listening),
        None if where == NODE else tried("connections", sock_diag.established),
        tried("sockets", _sockets) or 0,
    )


def reason_of(error: Exception) -> str:
    """Of what could not be read, and which capability it would take."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else error
    return printable(f"{told}{_NO_ROOT if isinstance(error, PermissionError) else ''}", _REASON_CHARACTERS)


def _sockets() -> int:
    """TCP sockets in use (net/ipv4/proc.c: sockstat_seq_show)."""
    total = 0
    for name, word in (("sockstat", "TCP:"), ("sockstat6", "TCP6:")):
        try:
            words = Path(f"/proc/thread-self/net/{name}").read_text("ascii").split()
        except FileNotFoundError:  # a kernel without IPv6
            continue
        total += int(words[words.index(word) + 2])  # "TCP: inuse 4"
    return total


def _listening() -> tuple[Listening, ...]:
    return tuple(
        Listening(listener.address, listener.port, listener.mark, listener.inode) for listener in sock_diag.listeners()
    )
