"""The connections of one namespace or of many, from all who know something of them. Blocking.

The sockets are read before the proxy is asked: what it does not tell of has ended since, as a second look shows, or is
told as what the kernel alone knows of it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Final

from agent.connections import proxys, read
from agent.connections.datagrams import join_udp
from agent.connections.join import Sources, join_tcp
from agent.connections.proxys import Told
from agent.connections.read import Reading
from agent.connections.values import Connection, Path, Process
from agent.kernel.node_proc import node_proc
from agent.kernel.socket_owners import owners_of
from proxy.api.constants import PROXY_PORTS

Inside = Callable[..., Any]
"""`call(function, *args)` in the namespace: its result or exception (agent.cli.target.Namespace.call)."""


class Unreachable(Exception):
    """A namespace that cannot be entered, or is gone; the words say which and why."""


NO_COOKIE: Final = "this kernel gives namespaces no cookie (Linux 5.14): which connections the proxy means is not known"
PIDS_UNKNOWN: Final = "of some sockets the process is not shown: that needs root, or CAP_SYS_PTRACE"


@dataclass(frozen=True, slots=True)
class Looked:
    """One namespace. `name`: of whom it is told."""

    name: str
    connections: tuple[Connection, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    inside: Inside
    reading: Reading


@dataclass(frozen=True, slots=True)
class Found:
    """`problems`: of the node as a whole."""

    places: tuple[Looked, ...]
    problems: tuple[str, ...] = ()


def look(name: str, inside: Inside, run_dir: FilePath) -> Found:
    """One namespace. Raises what `inside` does, and OSError when its sockets cannot be read."""
    place = _Place(name, inside, inside(read.reading))
    cookie = place.reading.netns_cookie
    return _joined([place], Told(problems=(NO_COOKIE,)) if cookie is None else proxys.ask(run_dir, cookie))


def look_at_all(places: Iterable[tuple[str, Inside]], run_dir: FilePath) -> Found:
    """Many, the proxy and the processes asked once for all. `Inside` raises Unreachable for one that is gone, which is
    a problem and no failure: pods end while they are looked at."""
    found: list[_Place] = []
    problems: list[str] = []
    for name, inside in places:
        try:
            found.append(_Place(name, inside, inside(read.reading)))
        except (Unreachable, OSError) as error:
            problems.append(f"{name}: {error}")
    joined = _joined(found, proxys.ask(run_dir))
    return replace(joined, problems=(*problems, *joined.problems))


def _joined(places: list[_Place], told: Told) -> Found:
    inodes = {held.inode for place in places for held in (*place.reading.tcp, *place.reading.udp)}
    owners = owners_of(inodes, node_proc())
    processes = {inode: Process(owner.pid, owner.command) for inode, owner in owners.by_inode.items()}
    missing = owners.refused and not owners.privileged and inodes - {0} - owners.by_inode.keys()
    looked: list[Looked] = []
    problems = list(told.problems)
    for place in places:
        try:
            looked.append(_looked(place, told, processes))
        except (Unreachable, OSError) as error:
            if len(places) == 1:
                raise
            problems.append(f"{place.name}: {error}")
    return Found(tuple(looked), (*problems, *((PIDS_UNKNOWN,) if missing else ())))


def _looked(place: _Place, told: Told, processes: dict[int, Process]) -> Looked:
    reading = place.reading
    cookie = reading.netns_cookie
    of_here = tuple(one for one in told.connections if one.netns_cookie == cookie)
    sources = Sources(
        reading.tcp, reading.udp, reading.flows, of_here, processes, frozenset(reading.interfaces), time.time()
    )
    connections = join_tcp(sources)
    if any(_surprises(one) for one in connections):
        again = place.inside(read.without_ended, reading)
        connections = join_tcp(replace(sources, tcp=again.tcp))
    connections += join_udp(sources)
    connections, problems = place.inside(read.explained, connections, reading)
    return Looked(place.name, tuple(sorted(connections, key=_order)), (*reading.problems, *problems))


def _surprises(one: Connection) -> bool:
    """It is led to our proxy, which does not tell of it: has it ended meanwhile?"""
    return one.path in (Path.REDIRECT, Path.PROXY) and (one.listener is None or one.listener in PROXY_PORTS)


def _order(one: Connection) -> tuple[str, str, int, bytes, int, int, bytes, int]:
    source, there = one.source, one.destination
    return (
        one.protocol,
        one.way.value,
        there.address.version,
        there.address.packed,
        there.port,
        source.address.version,
        source.address.packed,
        source.port,
    )


def all_connections(found: Found) -> Iterator[tuple[str, Connection]]:
    for place in found.places:
        for one in place.connections:
            yield place.name, one
