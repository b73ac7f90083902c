"""How fast the agent writes. Pure: time is given."""

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """`burst` writes at once, then `rate` a second (client-go util/flowcontrol: a token bucket)."""

    rate: float
    burst: int
    _full_at_s: float = 0.0  # when it would have all its tokens again

    def take(self, now_s: float) -> float:
        """Seconds to wait before the write that this permits; it is counted already."""
        begun_s = max(self._full_at_s, now_s)
        self._full_at_s = begun_s + 1.0 / self.rate
        return max(0.0, self._full_at_s - now_s - self.burst / self.rate)
