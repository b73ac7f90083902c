"""What became of a write, and what follows for the next ones. Pure."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from agent.kube.backoff import Backoff
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess

AFTER_FORBIDDEN_S: Final = 60.0
"""A role changes when somebody changes it; a thousand agents that lack a rule are to be no load meanwhile."""


class Outcome(Enum):
    """By the name that the metric has it by."""

    DONE = "done"
    CONFLICT = "conflict"  # 409: another object of that name, another version, or there already
    ABSENT = "absent"  # 404
    REFUSED = "refused"  # 4xx: the same would be refused again
    FORBIDDEN = "forbidden"  # 401, 403
    LATER = "later"  # 429 and 5xx
    UNREACHABLE = "unreachable"
    DROPPED = "dropped"  # too many waited, or for too long


Error = ApiRefused | CannotReach | InvalidAccess
"""Whatever agent.kube.client raises."""

_BY_STATUS: Final = {404: Outcome.ABSENT, 409: Outcome.CONFLICT, 429: Outcome.LATER}
_NOT_BY_ROLE: Final = (" is forbidden: User ", " cannot ")
"""apiserver/pkg/endpoints/handlers/responsewriters/errors.go: forbiddenMessage. What an admission webhook or policy
denies is a 403 too, and that object's own affair."""
_BY_ANOTHER: Final = "failed calling webhook"
"""A 500 that is one namespace's (apiserver/pkg/admission/plugin/webhook/errors: ToStatusErr and its callers)."""

_ANOTHER: Final = "metadata.uid: Invalid value"
"""The uid in a patch is another's: what may not be changed, and no condition (apimachinery/pkg/api/validation:
ValidateObjectMetaAccessorUpdate; controller_ref_manager.go goes by it too)."""


def outcome_of(error: Error) -> Outcome:
    if isinstance(error, CannotReach):
        return Outcome.UNREACHABLE
    if isinstance(error, InvalidAccess) or error.status == 401:
        return Outcome.FORBIDDEN
    if error.status == 403:
        by_role = all(words in str(error) for words in _NOT_BY_ROLE)
        return Outcome.FORBIDDEN if by_role else Outcome.REFUSED
    if error.status >= 500:
        return Outcome.REFUSED if _BY_ANOTHER in str(error) else Outcome.LATER
    if error.status == 422 and _ANOTHER in str(error):
        return Outcome.CONFLICT
    return _BY_STATUS.get(error.status, Outcome.REFUSED)


_ONE_OBJECTS: Final = frozenset({Outcome.CONFLICT, Outcome.ABSENT, Outcome.REFUSED})


@dataclass(slots=True)
class Trouble:
    """Of one kind of writes. `what`: in words, as "annotate pods"; `rule`: the role's, that is missing where they are
    forbidden. `problem`: what an operator is to see, empty for nothing."""

    what: str
    rule: str
    problem: str = ""
    _backoff: Backoff = field(default_factory=Backoff)

    def went_well(self) -> None:
        self.problem, self._backoff = "", Backoff()

    def met(self, error: Error, chance: float) -> float:
        """Seconds for which nothing of the kind is written. What is one object's own affair keeps no other waiting: it
        is tried again later itself. `chance` in [0, 1)."""
        outcome = outcome_of(error)
        if outcome in _ONE_OBJECTS:
            return 0.0
        hint = f"; the role must permit {self.rule}" if outcome is Outcome.FORBIDDEN else ""
        self.problem = f"may not {self.what}: {error}{hint}" if hint else f"cannot {self.what}: {error}"
        self._backoff = self._backoff.failed()
        pause_s = self._backoff.delay_s(chance, error.retry_after_s if isinstance(error, ApiRefused) else None)
        if outcome is Outcome.FORBIDDEN and self._backoff.failures > 1:
            return max(pause_s, AFTER_FORBIDDEN_S * (1.0 + chance))
        return pause_s
