"""The node's clock: whether somebody keeps it, and whether it jumps. adjtimex(2), clock_gettime(2)."""

import ctypes
import os
import struct
import time
from dataclasses import dataclass
from typing import Final

from agent.doctor.facts import Clock

# struct timex (linux/timex.h), 64 bit: modes, offset, freq, maxerror, esterror (microseconds), status
_TIMEX: Final = struct.Struct("=I4xqqqqi")
_TIMEX_BYTES: Final = 208
_STA_UNSYNC: Final = 0x0040
_TIME_ERROR: Final = 5

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Instant:
    """Both clocks at once, in nanoseconds."""

    real_ns: int
    monotonic_ns: int


def now() -> Instant:
    """MONOTONIC_RAW: the other one is slewed together with REALTIME."""
    return Instant(time.clock_gettime_ns(time.CLOCK_REALTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW))


def clock(began: Instant) -> Clock:
    """Asks only (modes 0). Raises OSError."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = int(_libc.adjtimex(timex))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"adjtimex: {os.strerror(number)}")
    _, _, _, max_error_us, _, status = _TIMEX.unpack_from(timex.raw)
    ended = now()
    looked_ns = ended.monotonic_ns - began.monotonic_ns
    return Clock(
        synchronised=state != _TIME_ERROR and not status & _STA_UNSYNC,
        max_error_s=max_error_us / 1e6,
        jump_s=(ended.real_ns - began.real_ns - looked_ns) / 1e9,
        looked_s=looked_ns / 1e9,
    )
