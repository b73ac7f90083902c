"""Where a chunked body ends. The bytes are forwarded as they are; this only counts and checks them."""

import re
from enum import Enum
from typing import Final

from proxy.http1.errors import ProtocolError
from proxy.http1.grammar import (
    CHUNK_LINE,
    MAX_CHUNK_LINE_BYTES,
    MAX_TRAILER_BYTES,
    PARTIAL_CHUNK_LINE,
    PARTIAL_TRAILERS,
    TRAILERS,
)

MORE: Final = -1
"""`scan` used everything up and the body goes on."""


class _Expecting(Enum):
    SIZE = 1
    DATA = 2
    DATA_END = 3
    TRAILERS = 4


class ChunkedBody:
    """One body's scanner; after `scan` returned an offset, or raised, it is spent.

    A line that is not whole yet is checked as far as it goes: the caller forwards what was scanned, and the next parser
    may be laxer than this one. `status` is what a violation is answered with: 400 for a request, 502 for a response.
    """

    __slots__ = ("_expecting", "_held", "_remaining", "_status")

    def __init__(self, status: int) -> None:
        self._status = status
        self._expecting = _Expecting.SIZE
        self._remaining = 0
        self._held = b""

    def scan(self, data: bytes, start: int = 0) -> int:
        """The offset in `data` just behind the body's end, or MORE. Raises ProtocolError on the first unsound byte."""
        held = self._held
        if not held:
            return self._scan(data, start)
        self._held = b""
        end = self._scan(held + data[start:], 0)
        return MORE if end == MORE else end - len(held) + start

    def _scan(self, data: bytes, position: int) -> int:
        end = len(data)
        while position < end:
            if self._expecting is _Expecting.DATA:
                step = min(self._remaining, end - position)
                position += step
                self._remaining -= step
                if not self._remaining:
                    self._expecting = _Expecting.DATA_END
            elif self._expecting is _Expecting.SIZE:
                size_line = CHUNK_LINE.match(data, position)
                if size_line is None or size_line.end() - position > MAX_CHUNK_LINE_BYTES:
                    return self._hold(data, position, PARTIAL_CHUNK_LINE, MAX_CHUNK_LINE_BYTES)
                position = size_line.end()
                self._remaining = int(size_line.group(1), 16)
                self._expecting = _Expecting.DATA if self._remaining else _Expecting.TRAILERS
            elif self._expecting is _Expecting.DATA_END:
                if not data.startswith(b"\r\n", position):
                    return self._hold(data, position, _CARRIAGE_RETURN, 1)
                position += 2
                self._expecting = _Expecting.SIZE
            else:
                trailers = TRAILERS.match(data, position)
                if trailers is None or trailers.end() - position > MAX_TRAILER_BYTES:
                    return self._hold(data, position, PARTIAL_TRAILERS, MAX_TRAILER_BYTES)
                return trailers.end()
        return MORE

    def _hold(self, data: bytes, position: int, partial: re.Pattern[bytes], limit_bytes: int) -> int:
        """Keep an unfinished line for the next data if it can still become a sound one, and is not too long."""
        rest = data[position : position + limit_bytes + 1]
        if len(rest) > limit_bytes or partial.fullmatch(rest) is None:
            what = self._expecting.name.lower().replace("_", " ")
            raise ProtocolError(self._status, "http1.codec_error", f"the chunked body is unsound (expected {what})")
        self._held = rest
        return MORE


_CARRIAGE_RETURN: Final = re.compile(rb"\r")
