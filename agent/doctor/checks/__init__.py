"""Every check, by subject. Pure: facts in, findings out."""

from collections.abc import Callable, Iterator
from typing import Final

from agent.doctor.checks import cni, interfaces, kernel, limits, machine, pitfalls, pods, rules, socket_lb
from agent.doctor.facts import Facts
from agent.doctor.findings import ORDER, Finding

_SUBJECTS: Final = (kernel, rules, interfaces, limits, socket_lb, cni, pods, machine, pitfalls)
_CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = tuple(subject.check for subject in _SUBJECTS)

IDS: Final[dict[str, str]] = {name: title for subject in _SUBJECTS for name, title in subject.IDS.items()}
"""What each is about."""


def judged(facts: Facts, only: frozenset[str] = frozenset()) -> tuple[Finding, ...]:
    """The worst first. `only`: ids; empty means all."""
    found = (finding for check in _CHECKS for finding in check(facts))
    wanted = (finding for finding in found if not only or finding.id in only)
    return tuple(sorted(wanted, key=lambda finding: ORDER.index(finding.severity)))
