"""How many files supervisor and workers may open, and what that is enough for."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from proxy.api.descriptor_needs import SUPERVISOR

SPARE: Final = 64
"""What connections leave free in a worker: one message of the supervisor brings at most nine."""


def raise_limit() -> int:
    """Soft limit to hard limit, inherited by workers; returns it. Four listeners a pod and two sockets a connection
    exceed the usual 1,024 (istio #56888)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def most_pods() -> int:
    """As many as the limit is enough for."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return SUPERVISOR.most_pods(limit) if limit != resource.RLIM_INFINITY else 1 << 31


def leave_spare() -> None:
    """Of a worker: connections find none a little sooner, and wait in their queue. Else the next pod's could not be
    received, and the worker would be no good to any pod."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard > 4 * SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - SPARE), hard))


@contextmanager
def with_spare() -> Iterator[None]:
    """While descriptors are received."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
