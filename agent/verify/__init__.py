"""Whether the rules do what they are for: connections made from inside a namespace, and what became of each.

`expected` and `matrix` say which are made and what each must show; they are pure. `probes`, `visitor` and `run` act
in the network namespace that the calling thread is in. Nothing here changes a rule.
"""

from agent.verify.matrix import Cell, Sender
from agent.verify.outcome import Outcome, Report, Result
from agent.verify.run import verify

__all__ = ["Cell", "Outcome", "Report", "Result", "Sender", "verify"]
