"""How many descriptors agent and proxy reckon with: what they refuse pods by, and what `headgate doctor` warns by."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Need:
    """Of one process. `beside`: what it has without any pod."""

    a_pod: int
    beside: int

    def most_pods(self, limit: int) -> int:
        """As many as the limit is enough for."""
        return max(0, (limit - self.beside) // self.a_pod)

    def of(self, pods: int) -> int:
        return self.beside + self.a_pod * pods


AGENT: Final = Need(4, 256)
"""A pod: one for good, its listeners' box (measured: 21 + 1 a pod); three more while it is enrolled, as all may be at
once: its namespace, a copy of that for the thread that enters, one for the proxy. Beside: 21 at rest; sixteen proofs at
a time with eight sockets each (agent.supervisor.effects.PROVERS); watches, admin, runtimes that ask."""
SUPERVISOR: Final = Need(10, 128)
"""A pod, measured: its namespace, its listeners' box, four listeners; eight with those of tunnel and DNS. Beside,
measured: 23, with scrapes, admin and a hand-over of listeners at the same time."""
WORKER: Final = Need(SUPERVISOR.a_pod - 1, 64)
"""It has no box, and may come to serve every pod. Beside: 7, and what connections leave free (proxy.descriptors.SPARE);
they come on top."""
