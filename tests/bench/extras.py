"""What is measured beside the rows, by name: each in labs of its own, each a few figures."""

from collections.abc import Callable, Sequence
from typing import Final

from tests.bench import (
    cluster,
    cni_add,
    exclusions,
    explain,
    footprint,
    idle_connections,
    many_connections,
    many_pods,
    policy_updates,
    slow_reader,
    sustained,
)
from tests.bench.measure import Plan
from tests.bench.results import Fact

Say = Callable[[str], None]

ALONE: Final[dict[str, Callable[[Plan, Say], tuple[Fact, ...]]]] = {
    "sustained": sustained.measure,
    "many-connections": lambda _, say: many_connections.measure(say),
    "footprint": lambda _, say: footprint.measure(say),
    "idle-connections": lambda _, say: idle_connections.measure(say),
    "slow-reader": lambda _, say: slow_reader.measure(say),
    "exclusions-500": lambda _, say: exclusions.measure(say),
    "explain": lambda _, say: explain.measure(say),
    "cni-add": lambda _, say: cni_add.measure(say),
    "cluster": lambda plan, say: cluster.measure(plan.seconds, say),
    "policy-updates": lambda _, say: policy_updates.measure(say),
}


def measure(names: Sequence[str], plan: Plan, say: Say) -> tuple[Fact, ...]:
    """All figures of these extras (rows.EXTRAS). Raises LabError, KernelRefused, LoadFailed."""
    facts: list[Fact] = []
    for name in names:
        if name in ALONE:
            facts += ALONE[name](plan, say)
    if together := set(names) & many_pods.NAMES:  # one node of 250 pods for all three
        facts += many_pods.measure(together, plan.seconds, say)
    return tuple(facts)
