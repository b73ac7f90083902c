"""When certificates are made anew. Pure.

A new authority is published before it signs: what is served must be trusted by every API server already. The old one
stays in the bundle until it ends, for replicas that have not heard yet.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

DAY_S: Final = 86_400.0
AUTHORITY_LIFE_S: Final = 365 * DAY_S
AUTHORITY_LEFT_S: Final = 90 * DAY_S
"""Replaced with so much left: open-policy-agent/cert-controller, pkg/rotator: lookahead of 90 days."""
SERVING_LIFE_S: Final = 30 * DAY_S
SERVING_LEFT_S: Final = 10 * DAY_S
"""A third, as cert-manager's renewBefore by default (cert-manager.io/docs: Certificate resource)."""
BACKDATED_S: Final = 3600.0
"""For clocks that are behind (cert-controller: notBefore an hour ago)."""
OVERLAP_S: Final = 3600.0
"""From an authority's publication to its first signature. An API server hears of a configuration within seconds; one
that is cut off from etcd for an hour admits nothing anyway."""


@dataclass(frozen=True, slots=True)
class Span:
    """Of a certificate, in seconds since the epoch."""

    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """`authorities`: the first one signs. `signer`: which of them signed what is served; None: none of them did.
    `names`: of the served one's subjectAltName."""

    authorities: tuple[Span, ...]
    serving: Span
    signer: int | None
    names: frozenset[str]


class Step(Enum):
    NOTHING = "nothing"
    SERVING = "serving certificate"
    AUTHORITY = "authority"
    ALL = "authority and serving certificate"


@dataclass(frozen=True, slots=True)
class Due:
    """`why`: in words, empty for NOTHING."""

    step: Step
    why: str = ""


def due(held: Held, name: str, now_s: float) -> Due:
    """`name`: that the API server asks for. One step at a time: ask again after each."""
    newest = held.authorities[0]
    if newest.ends_s <= now_s:
        return Due(Step.ALL, "the authority has ended")
    if why := _unusable(held, name, now_s):
        return Due(Step.SERVING, why)
    if newest.ends_s - now_s < AUTHORITY_LEFT_S:
        return Due(Step.AUTHORITY, f"the authority has {_days(newest.ends_s - now_s)} left")
    if now_s < newest.begins_s + BACKDATED_S + OVERLAP_S:
        return Due(Step.NOTHING)
    if held.signer != 0:
        return Due(Step.SERVING, "a new authority is known to the API servers")
    if held.serving.ends_s - now_s < SERVING_LEFT_S:
        return Due(Step.SERVING, f"the serving certificate has {_days(held.serving.ends_s - now_s)} left")
    return Due(Step.NOTHING)


def _unusable(held: Held, name: str, now_s: float) -> str:
    """No API server takes it: nothing is lost by signing before the overlap is over."""
    if held.serving.ends_s <= now_s:
        return "the serving certificate has ended"
    if held.signer is None:
        return "no authority of ours has signed the serving certificate"
    if held.authorities[held.signer].ends_s <= now_s:
        return "the authority of the serving certificate has ended"
    if name not in held.names:
        return f"the serving certificate is not for {name}"
    return ""


def _days(left_s: float) -> str:
    return f"{left_s / DAY_S:.0f} days"
