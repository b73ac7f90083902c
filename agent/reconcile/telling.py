"""What a proxy that connects is told of a pod."""

from enum import Enum

from agent.reconcile.life import Life, State

_WAITING = frozenset({State.PLANNED, State.ANNOUNCED, State.PENDING})
_OVER = frozenset({State.DISABLED, State.GONE})


class Telling(Enum):
    SERVE = "serve"
    KEEP = "keep"  # serve on, if it does already
    OMIT = "omit"  # let go of it


def telling(life: Life) -> Telling:
    """Whatever is captured is to be served. A pod that nobody has looked at, or that is draining, keeps the proxy that
    it has and needs no new one: what was steered to a proxy ended with it. From its withdrawal on it is omitted, or a
    proxy that connects just then would never hear of its end."""
    if life.state in _OVER:
        return Telling.OMIT
    if life.state in _WAITING or life.capturing:
        return Telling.SERVE
    return Telling.KEEP if life.announced or not life.looked_at else Telling.OMIT
