"""Small files of /proc, read in four system calls: Python's own open makes three more of each, and around each the
interpreter's lock changes hands while other threads wait for it."""

import os
from typing import Final

_PIECE_BYTES: Final = 1 << 16
_OPENED: Final = os.O_RDONLY | os.O_CLOEXEC


def read_whole(path: str) -> bytes:
    """Raises OSError, FileNotFoundError among it: the process, or the kernel's module, is not there."""
    fd = os.open(path, _OPENED)
    try:
        pieces = []
        while piece := os.read(fd, _PIECE_BYTES):
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces)
