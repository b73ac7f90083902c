"""Low descriptor numbers kept back for libnftables, which is no good with high ones.

libnftables 1.0.6 waits for the kernel with select(2) (mnl.c: mnl_batch_talk). A socket whose number is FD_SETSIZE or
more ends the process there (glibc: __fdelt_chk aborts), and one that it cannot have at all does so too (mnl.c:
nft_mnl_socket_open exits). Pods lead there, or who opens connections to the metrics port.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_FD_SETSIZE: Final = 1024
"""select(2): of glibc and of the kernel's ABI; no limit raises it."""
_NEARLY: Final = _FD_SETSIZE - 64
"""From here on other threads could take what is left while a context is made."""
_KEPT: Final = 16
"""Given free together. The kernel hands out the lowest number that is free: somebody else must take all of them in the
microseconds in which one is meant for libnftables, and then that is seen."""
_DEV_NULL: Final = "/dev/null"


class LowNumbers:
    """Not to be used by two threads at once. Nothing is kept back before `keep`."""

    __slots__ = ("_kept", "_wanted")

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._wanted = 0

    def keep(self) -> None:
        """Early, while low numbers are free. Keeping twice is harmless."""
        self._wanted = _KEPT
        self.refill()

    def refill(self) -> None:
        """After one that was used has become free. Takes what there is: less is no error."""
        while len(self._kept) < self._wanted:
            number = _lowest()
            if not 0 <= number < _FD_SETSIZE:
                if number >= 0:
                    os.close(number)
                return
            self._kept.append(number)

    @contextmanager
    def one_for_use(self) -> Iterator[None]:
        """The next descriptor that this thread opens within has a low number. Raises OSError (EMFILE) when there is
        none: before, or, when others took them meanwhile, after; then what was opened must not be used. Retry later."""
        if _is_free_below(_NEARLY):
            yield
            return
        kept, self._kept = self._kept, []
        for number in kept:
            os.close(number)
        try:
            if not _is_free_below(_FD_SETSIZE):
                raise _none_left()
            yield
            if not _is_free_below(_FD_SETSIZE):
                raise _none_left()
        finally:
            self.refill()


def _is_free_below(limit: int) -> bool:
    number = _lowest()
    if number < 0:
        return False
    os.close(number)
    return number < limit


def _lowest() -> int:
    """A new descriptor; -1 when there is none to be had."""
    try:
        return os.open(_DEV_NULL, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1


def _none_left() -> OSError:
    return OSError(
        errno.EMFILE,
        "no descriptor below 1,024 is free, and libnftables can use no other: too many pods or connections",
    )
