"""Keeps the agent small: what libnftables needs for a moment is given back to the system."""

import asyncio
import ctypes
import gc
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h, mallopt(3)
_QUIET_S: Final = 2.0
_libc: Final = ctypes.CDLL(None)


def share_one_heap() -> None:
    """One malloc arena for all threads, before the first starts: each that runs libnftables would else keep one of its
    own, and fragments of several cannot be given back. A libc without mallopt (musl) is left as it is."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


class Tidying:
    """Returns free heap to the system when no rules were changed for a while: 250 installs at once leave 10 MB."""

    def __init__(self) -> None:
        self._due: asyncio.TimerHandle | None = None

    def later(self) -> None:
        """After `_QUIET_S` without another call. On the event loop."""
        self.cancel()
        self._due = asyncio.get_running_loop().call_later(_QUIET_S, _trim)

    def cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()


def _trim() -> None:
    gc.collect()  # first: what a burst left in cycles (tasks, tracebacks) lies between what is to be given back
    malloc_trim = getattr(_libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
