"""One change at a time in one network namespace, whoever makes it: the agent, an init container, a person.

The lock is flock(2) on the namespace's own file, so pods never wait for each other and nothing is written anywhere.
istio-cni locks the same file (its XTABLES_LOCKFILE is a bind mount of it), so it and we take turns.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OWN: Final = "/proc/thread-self/ns/net"
LONGEST_WAIT_S: Final = 5.0
"""A change takes some 100 ms by iptables, 15 by nft (median of 7, two busy cores)."""
_PAUSE_S: Final = 0.005


@contextmanager
def locked(longest_wait_s: float = LONGEST_WAIT_S) -> Iterator[int]:
    """Holds the lock of the calling thread's namespace. Yields its descriptor: a child that goes on when its parent is
    killed takes it along, and keeps others waiting until it has ended.

    A courtesy, not a right: anybody in the pod may lock that file, without any capability, and an application must not
    keep its pod out of the mesh, or as it is, by doing so. So after `longest_wait_s` this goes on without the lock.
    What two do at once is whole all the same: tables change in transactions, and are read back and compared.
    """
    fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _acquire(fd, longest_wait_s)
        yield fd
    finally:
        os.close(fd)


def _acquire(fd: int, longest_wait_s: float) -> None:
    until = time.monotonic() + longest_wait_s
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return None
        time.sleep(_PAUSE_S)
