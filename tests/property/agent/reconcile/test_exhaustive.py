"""A pod's life explored (issue 3): every interleaving of events, outcomes, crashes and restarts, to a bounded depth.

`actions.py` and `moves.py` say what may happen, `checks.py` what must be true whatever happens. Not in the model and so
not shown: what hangs for longer than its time-out; a pod that its source stops naming while no agent runs and whose
namespace lives on (what no source names is not touched); a former sandbox that outlives an agent's restart.
"""

import gc
from collections.abc import Iterator

import pytest

from tests.property.agent.reconcile.checks import fair
from tests.property.agent.reconcile.explore import Came, Explorer, Place, seen_by_each
from tests.property.agent.reconcile.lives import Lives
from tests.property.agent.reconcile.model import Netns, Pod, World
from tests.property.agent.reconcile.moves import moves

DEPTH = 6
DEPTH_OF_TWO = 5

NOTHING = World("dead", "dead", (Pod("on", "", Netns(1)),))


def after(lives: Lives, world: World, *labels: str) -> World:
    for label in labels:
        world = next(ahead for name, ahead in moves(lives, world) if name == label)
    return world


def at_its_end(lives: Lives, world: World) -> World:
    while (ahead := fair(lives, world)) is not None:
        world = ahead
    return world


def seeds(lives: Lives) -> Iterator[World]:
    """Where it is begun: most of what is interesting is more than a few moves away from a node where nothing runs."""
    yield NOTHING
    waiting = after(lives, NOTHING, "proxy starts", "agent starts", "inspect: inspected nothing", "announce: absent")
    yield after(lives, waiting, "proxy connects", "source says off")
    proved = at_its_end(lives, NOTHING)
    yield proved
    busy = after(lives, proved, "connection is steered")
    yield busy
    yield after(lives, busy, "source says off", "drain: drained", "countsteered: steered 1")
    yield after(lives, busy, "sandbox is made anew", "drain: drained", "countsteered: steered 1")
    yield after(lives, busy, "agent is killed")
    yield after(lives, proved, "proxy is killed", "agent is killed")


@pytest.fixture(scope="module")
def explorer() -> Iterator[Explorer]:
    """Millions of tuples without a cycle among them: the collector would look through them again and again."""
    gc.disable()
    yield Explorer()
    gc.enable()


@pytest.fixture(scope="module")
def begun(explorer: Explorer) -> list[World]:
    return list(seeds(explorer.lives))


@pytest.fixture(scope="module")
def one(explorer: Explorer, begun: list[World]) -> Came[Place]:
    return explorer.one_pod(begun, DEPTH)


def test_the_invariants_hold_wherever_a_pod_can_come_to(explorer: Explorer, one: Came[Place]) -> None:
    print(f"\none pod, {DEPTH} moves deep: {len(one)} states, {explorer.transitions} transitions, {explorer.lives}")
    assert len(one) > 100_000
    states = {explorer.lives.known[life].state for life in range(len(explorer.lives))}
    assert states == {
        "seen", "planned", "announced", "installed", "proved", "drifted", "pending", "failed", "leaving", "disabled",
        "gone",
    }  # fmt: skip


def test_two_pods_come_to_no_place_that_one_does_not_come_to(
    explorer: Explorer, begun: list[World], one: Came[Place]
) -> None:
    """Agent and proxy live and die for both. Each pod's part in every pair has been judged, and from each of them the
    pod comes to its end when left alone; nothing that happens to one moves the other."""
    together = [(first, second) for first in begun for second in begun if first[:2] == second[:2]]
    pairs = explorer.two_pods(together, DEPTH_OF_TWO)
    print(f"two pods, {DEPTH_OF_TWO} moves deep: {len(pairs)} states")
    assert len(pairs) > 700_000
    assert seen_by_each(pairs) <= one.keys()


def test_from_nothing_a_node_left_alone_proves_its_pod(explorer: Explorer) -> None:
    """The model itself: what the exploration takes for good is reached."""
    (pod,) = at_its_end(explorer.lives, NOTHING).pods
    assert pod.here.machine is not None and explorer.lives.known[pod.here.machine.life].state == "proved"
    assert (pod.here.form, pod.here.ears) == ("rules", "proxy")
