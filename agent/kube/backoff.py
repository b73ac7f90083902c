"""How long to wait before the next attempt. Pure."""

from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 0.8
LONGEST_S: Final = 30.0
FACTOR: Final = 2.0
"""client-go tools/cache/reflector.go: 800 ms doubling to 30 s, with jitter of 100 %."""
STEADY_S: Final = 120.0
"""After so long without trouble the count begins anew (the same place)."""
SPREAD_S: Final = 10.0
"""First lists of a thousand nodes that start together (issue 5)."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """`failures` so far; `failed` gives the next one."""

    failures: int = 0

    def failed(self) -> "Backoff":
        return Backoff(self.failures + 1)

    def delay_s(self, chance: float, wanted_s: float | None = None) -> float:
        """`chance` in [0, 1): up to twice the time, so that a thousand nodes do not come back together. `wanted_s`: the
        server's Retry-After, which is the least."""
        base_s = min(FIRST_S * FACTOR ** min(self.failures - 1, 16), LONGEST_S) if self.failures else 0.0
        return max(base_s, wanted_s or 0.0) * (1.0 + chance)
