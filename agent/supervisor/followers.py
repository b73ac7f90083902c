"""Who else is told when a pod's life has changed."""

from dataclasses import dataclass
from typing import Protocol

from agent.reconcile import Life


class Follower(Protocol):
    """Called on the event loop, after the change: neither blocks nor raises. What takes time is begun elsewhere."""

    def told(self, life: Life) -> None:
        """The life as it is now."""

    def gone(self, life: Life, *, replaced: bool) -> None:
        """It has ended. `replaced`: the pod goes on in another namespace, as another life."""


@dataclass(frozen=True, slots=True)
class Followers:
    """In the order in which they are told."""

    all: tuple[Follower, ...]

    def told(self, life: Life) -> None:
        for follower in self.all:
            follower.told(life)

    def gone(self, life: Life, *, replaced: bool) -> None:
        for follower in self.all:
            follower.gone(life, replaced=replaced)
