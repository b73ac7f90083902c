"""Who of several may write: a Lease (coordination.k8s.io/v1) by client-go's rules, tools/leaderelection. Pure: time is
given.

Clocks are not compared: what counts is for how long, by one's own monotonic clock, a record was seen unchanged.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

DURATION_S: Final = 15.0
RENEW_WITHIN_S: Final = 10.0
RETRY_S: Final = 2.0
"""client-go's own defaults for controllers (component-base/config/v1alpha1/defaults.go)."""
_RELEASED_S: Final = 1
_LONGEST_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says; what is no text or number there counts as absent. `renewed` is only compared, never read."""

    holder: str = ""
    duration_s: float = DURATION_S
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    """`since_s`: when this record was seen first. `version`: resourceVersion, the condition of the next write."""

    record: Record
    version: str
    since_s: float

    def is_free(self, now_s: float) -> bool:
        return not self.record.holder or now_s > self.since_s + self.record.duration_s


def record_of(lease: object) -> Record:
    spec = lease.get("spec") if isinstance(lease, dict) else None
    spec = spec if isinstance(spec, dict) else {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    sane = isinstance(duration, int) and 0 < duration <= _LONGEST_S
    return Record(
        _text(spec, "holderIdentity"),
        float(duration) if sane and duration is not None else DURATION_S,
        _text(spec, "acquireTime"),
        _text(spec, "renewTime"),
        transitions if isinstance(transitions, int) and transitions >= 0 else 0,
    )


def observed(lease: object, before: Observed | None, now_s: float) -> Observed:
    """`before`: what was seen last, None for nothing."""
    record = record_of(lease)
    metadata = lease.get("metadata") if isinstance(lease, dict) else None
    version = _text(metadata, "resourceVersion") if isinstance(metadata, dict) else ""
    since_s = before.since_s if before is not None and before.record == record else now_s
    return Observed(record, version, since_s)


def taken(before: Record | None, identity: str, time_s: float) -> dict[str, Any]:
    """The spec of a Lease that `identity` takes or renews. `time_s`: the wall clock, for others to read."""
    now = _micro_time(time_s)
    mine = before is not None and before.holder == identity
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(DURATION_S),
        "acquireTime": before.acquired if mine and before is not None and before.acquired else now,
        "renewTime": now,
        "leaseTransitions": 0 if before is None else before.transitions + (0 if mine else 1),
    }


def released(before: Record, time_s: float) -> dict[str, Any]:
    """Nobody's: whoever looks next may take it."""
    now = _micro_time(time_s)
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": _RELEASED_S,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": before.transitions,
    }


def _text(of: dict[str, Any], key: str) -> str:
    value = of.get(key)
    return value if isinstance(value, str) else ""


def _micro_time(time_s: float) -> str:
    """metav1.MicroTime: RFC 3339 with six digits."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
