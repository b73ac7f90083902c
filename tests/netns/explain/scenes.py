"""The two pods in which rules are tried: one that lets everything through, and one as strict as distributions are."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Self

from tests.netns.explain.oracle import Scene
from tests.netns.explain.universe import LISTENERS

_STRICT: Final = 5
"""Every fifth ruleset is tried in the strict one."""
_LED_BY_MARK: Final = (
    ("rule", "add", "fwmark", "0x111/0xfff", "lookup", "100"),
    ("route", "add", "local", "default", "dev", "lo", "table", "100"),
)
"""What a transparent proxy needs (ip-rule(8)); Istio's and ours."""


@dataclass(slots=True)
class Scenes:
    """Context manager."""

    free: Scene = field(init=False)
    strict: Scene = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        try:
            self.free = self._stack.enter_context(Scene(listeners=LISTENERS))
            self.strict = self._stack.enter_context(Scene(listeners=LISTENERS, forwards=False, rp_filter=1))
            for family in ("-4", "-6"):
                for line in _LED_BY_MARK:
                    self.free.pod.shell("ip", family, *line)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, seed: int) -> Scene:
        return self.strict if seed % _STRICT == _STRICT - 1 else self.free
