"""What each action of the agent does to the node, with every outcome it may have: success first, then the failures."""

from collections.abc import Callable, Iterator
from typing import Final

from tests.property.agent.reconcile.lives import Lives
from tests.property.agent.reconcile.model import (
    CAPTURING,
    WANTED,
    WHOLE,
    Netns,
    Pod,
    Violation,
    World,
    outcome,
    released,
    served,
)

Ended = tuple[str, Pod]
"""The event that an action ends in, and the pod as it is then."""

_ENDS_PROOF: Final = ("install", "heal", "drain", "remove", "withdraw")
_OUTSIDE: Final = frozenset({"withdraw"})
"""Actions that enter no namespace."""


def perform(lives: Lives, world: World, index: int, old: bool) -> Iterator[tuple[str, World]]:
    """The action under way, once for each of its outcomes."""
    pod = world.pods[index]
    netns = pod.netns(old)
    machine = netns.machine
    assert machine is not None and machine.todo
    action = machine.todo[0]
    if action.startswith(_ENDS_PROOF) and machine.proving:
        pod = pod.put(old, netns._replace(machine=machine._replace(proving=False)))
    for word, after in _outcomes(world, action, pod, old):
        yield f"{action}: {word}", world.with_pod(index, outcome(lives, after, old, word))


def _outcomes(world: World, action: str, pod: Pod, old: bool) -> Iterator[Ended]:
    netns = pod.netns(old)
    if action not in _OUTSIDE and not netns.alive:
        yield "lost", pod
        if action == "inspect":
            yield "unfit", pod
        return
    yield from _EFFECTS[action](world, pod, old, netns)
    if action not in _OUTSIDE:
        yield "refused", pod


def _inspect(world: World, pod: Pod, old: bool, netns: Netns) -> Iterator[Ended]:
    held = "path served" if netns.form == "path" and netns.ears else netns.form
    yield f"inspected {held}", pod
    if not old:  # the address is not there, or not the pod's: what is in force is no enrolment of this pod
        yield f"misfit {held}", pod.put(old, netns._replace(enrolled=False))


def _announce(world: World, pod: Pod, old: bool, netns: Netns) -> Iterator[Ended]:
    if world.proxy != "connected":
        yield "absent", pod
        return
    told = pod._replace(untold="")
    yield "acked", served(told, old)
    if netns.ears != "proxy":
        yield "nacked", unserved(told, old)


def unserved(pod: Pod, old: bool) -> Pod:
    """A refused pod: what the proxy held of it in another namespace is let go before it tries."""
    if pod.old is None or not pod.netns(not old).ears:
        return pod
    return pod.put(not old, pod.netns(not old)._replace(ears=""))


def _in_force(form: str, ended: str) -> Callable[[World, Pod, bool, Netns], Iterator[Ended]]:
    def act(world: World, pod: Pod, old: bool, netns: Netns) -> Iterator[Ended]:
        yield ended, in_force(world, pod, old, netns, form)

    return act


def in_force(world: World, pod: Pod, old: bool, netns: Netns, form: str) -> Pod:
    """The plan's rules; nothing is written where they are in force already."""
    if netns.form not in CAPTURING and not netns.ears and not netns.deaf:
        raise Violation("rules lead to a port where nobody listens, and nobody was lost")
    inbox = netns.machine.inbox if netns.machine else ()
    parting = any(word.startswith(("seen off", "left")) for word in inbox)  # told, and its turn has not come
    wanted = pod.wish in WANTED and not old and not parting and world.agent == "alive"
    enrolled = netns.enrolled or wanted
    return pod.put(old, netns._replace(form=form, enrolled=enrolled, tampered=False))


def _drain(world: World, pod: Pod, old: bool, netns: Netns) -> Iterator[Ended]:
    yield "drained", pod.put(old, _rewritten(pod, old, netns, "drain"))


def _remove(world: World, pod: Pod, old: bool, netns: Netns) -> Iterator[Ended]:
    if netns.steered and netns.ears == "proxy" and world.proxy == "connected" and not pod.untold:
        raise Violation("removed while steered connections live: what they send goes on in clear")
    gone = _rewritten(pod, old, netns, "nothing")
    yield "removed", pod.put(old, gone._replace(steered=False, deaf=False))


def _rewritten(pod: Pod, old: bool, netns: Netns, form: str) -> Netns:
    if netns.enrolled and netns.form in WHOLE:
        raise Violation(f"the rules of an enrolled pod that is wanted are replaced by {form}")
    # Whose rules were deleted while no agent lived cannot be known to have been enrolled: that stays tampered with.
    return netns._replace(form=form, tampered=netns.tampered and netns.enrolled)


def _count(world: World, pod: Pod, old: bool, netns: Netns) -> Iterator[Ended]:
    yield f"steered {int(netns.steered)}", pod


def _withdraw(world: World, pod: Pod, old: bool, netns: Netns) -> Iterator[Ended]:
    connected = world.proxy == "connected"
    told = pod._replace(untold="omit") if connected and pod.untold else pod
    yield "withdrawn", released(told, connected=connected)


_EFFECTS: Final[dict[str, Callable[[World, Pod, bool, Netns], Iterator[Ended]]]] = {
    "inspect": _inspect,
    "announce": _announce,
    "install rules": _in_force("rules", "installed"),
    "install others": _in_force("others", "installed"),
    "heal rules": _in_force("rules", "healed"),
    "heal others": _in_force("others", "healed"),
    "drain": _drain,
    "countsteered": _count,
    "remove": _remove,
    "withdraw": _withdraw,
}
