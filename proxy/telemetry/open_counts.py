"""How many connections a worker holds of each pod, in memory that it shares with its supervisor.

A worker that is killed says nothing more: what it held, and so was cut, is read here, to the last connection. Nothing
is sent for it, and a connection costs two stores.
"""

import mmap
import os
from typing import Final

MAX_SLOTS: Final = 8192
"""Pods of one worker that are counted at once, those that leave included: a node of 250 pods (kubelet's usual 110 and
room) that are all replaced each second of a drain of 25 s. 64 KiB, of which a page is used for each 512."""
NOT_COUNTED: Final = 0
"""The slot of whatever comes when none is free: written by many, read by nobody."""

_CELL_BYTES: Final = 8
"""A machine word: one instruction writes it, which a signal cannot halve."""


class OpenCounts:
    """One cell a slot. The supervisor hands slots out (`take`, `free`) and reads; the worker writes its `cell`s."""

    __slots__ = ("_cells", "_freed", "_next")

    def __init__(self, descriptor: int) -> None:
        """Maps what `make_shared` has made; the descriptor stays the caller's. Raises OSError or ValueError when it is
        something else."""
        self._cells = memoryview(mmap.mmap(descriptor, MAX_SLOTS * _CELL_BYTES)).cast("Q")
        self._freed: list[int] = []
        self._next = NOT_COUNTED + 1

    def take(self) -> int:
        """A slot at 0 that nobody else writes; NOT_COUNTED when none is left."""
        if self._freed:
            return self._freed.pop()
        if self._next >= MAX_SLOTS:
            return NOT_COUNTED
        self._next += 1
        return self._next - 1

    def free(self, slot: int) -> None:
        """Its writer has let go of it."""
        if slot != NOT_COUNTED:
            self._cells[slot] = 0
            self._freed.append(slot)

    def number(self, slot: int) -> int:
        return 0 if slot == NOT_COUNTED else self._cells[slot]

    def cell(self, slot: int) -> memoryview:
        """What the worker writes the number to: its element 0."""
        return self._cells[slot : slot + 1]


def make_shared() -> int:
    """The descriptor of empty memory for one worker; the caller closes it. Raises OSError."""
    descriptor = os.memfd_create("headgate-open-counts", os.MFD_CLOEXEC)
    os.truncate(descriptor, MAX_SLOTS * _CELL_BYTES)
    return descriptor
