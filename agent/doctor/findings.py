"""What a check says, and what could not be looked at. Pure."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """`SERIOUS`: traffic is lost, passes the mesh by, or will. `WARNING`: it may. `INFO`: worth knowing, nothing is
    wrong."""

    INFO = "info"
    WARNING = "warning"
    SERIOUS = "serious"


ORDER = (Severity.SERIOUS, Severity.WARNING, Severity.INFO)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing. `where`: `node`, `pod NAMESPACE/NAME`, `netns PATH`, `file …`, or an
    object. The texts hold names that others chose: made printable where they are shown."""

    id: str
    severity: Severity
    where: str
    what: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """What could not be looked at: the checks that go by it say nothing, which is no clean bill. `reason` says what
    it would need."""

    what: str
    where: str
    reason: str
