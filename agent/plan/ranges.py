"""Whole numbers as inclusive ranges: ports, user ids, group ids."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ranges:
    """Inclusive (first, last), ascending, neither touching nor overlapping: equal sets compare equal. Made by `of`."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, *items: int | tuple[int, int]) -> "Ranges":
        """Single numbers and inclusive (first, last), in any order; those that touch become one."""
        return cls(_joined(item if isinstance(item, tuple) else (item, item) for item in items))

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.spans)

    def __or__(self, other: "Ranges") -> "Ranges":
        return Ranges.of(*self.spans, *other.spans)

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.spans)


def _joined(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if first > last:
            raise ValueError(f"{first}-{last} ends before it begins")
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)
