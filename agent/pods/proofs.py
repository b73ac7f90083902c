"""Evidence that redirection works, or why it is missing: one proof a direction and IP family."""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class ProofStatus(Enum):
    OK = "ok"
    FAILED = "failed"
    ABSENT = "absent"  # cannot be taken here: the pod has no address of this family, for example
    EXEMPT = "exempt"  # nothing is to be proved: the pod wishes such a connection to go direct


_SETTLED: Final = frozenset({ProofStatus.OK, ProofStatus.EXEMPT})


@dataclass(frozen=True, slots=True)
class Proof:
    """Outcome of one proof; `reason` is empty only for OK."""

    status: ProofStatus
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status.value} ({self.reason})" if self.reason else self.status.value


@dataclass(frozen=True, slots=True)
class Proofs:
    """The four proofs: from and to the pod, over IPv4 and IPv6."""

    out4: Proof
    out6: Proof
    in4: Proof
    in6: Proof

    def items(self) -> tuple[tuple[str, Proof], ...]:
        return (("out4", self.out4), ("out6", self.out6), ("in4", self.in4), ("in6", self.in6))

    @property
    def failures(self) -> tuple[str, ...]:
        """`NAME: reason` of each failed proof."""
        return tuple(f"{name}: {proof.reason}" for name, proof in self.items() if proof.status is ProofStatus.FAILED)

    @property
    def hold(self) -> bool:
        """None failed, and each direction is proved in one family at least, or has nothing to prove: absence alone
        proves nothing."""
        return not self.failures and all(
            _SETTLED & {four.status, six.status} for four, six in ((self.out4, self.out6), (self.in4, self.in6))
        )
