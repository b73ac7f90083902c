"""A node in miniature: two processes, a pod's namespaces, and what the kernel, the proxy and the fd store hold of it.

Words are strings because exploring hashes them by the million. `Violation` is raised where an action does harm; what a
state must not be is `checks.py`'s.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.property.agent.reconcile.lives import Lives

# Forms of a namespace's rules. "rules", "others": of one wish, of another. "path": a return path alone (an install or a
# removal cut short, or tables deleted); "damaged": something of the tables is missing or foreign.
WHOLE: Final = frozenset({"rules", "others"})
CAPTURING: Final = WHOLE | {"damaged"}
WANTED: Final = frozenset({"on", "other", "bad"})


_TOLD: Final = ("seen", "left", "stop")
"""What a worker that is over, or no longer the pod's present one, passes on."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Machine(NamedTuple):
    """One worker of the agent: its life by number, the actions under way, outcomes and events that wait."""

    life: int
    todo: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    inbox: tuple[str, ...] = ()
    proving: bool = False


class Netns(NamedTuple):
    """One namespace. `ears`: who holds its listeners, "proxy", "store" or "". The last three are the judge's memory:
    the pod was enrolled and is wanted; somebody else changed its rules; a proxy was lost with its listeners."""

    number: int
    alive: bool = True
    form: str = "nothing"
    steered: bool = False
    ears: str = ""
    machine: Machine | None = None
    enrolled: bool = False
    tampered: bool = False
    deaf: bool = False


class Pod(NamedTuple):
    """`wish`: what the source says ("gone": nothing). `untold`: what a snapshot under way has yet to say. `succeeded`:
    the life in the old namespace is no longer the pod's present one."""

    wish: str
    untold: str
    here: Netns
    old: Netns | None = None
    succeeded: bool = False

    def netns(self, old: bool) -> Netns:
        netns = self.old if old else self.here
        assert netns is not None
        return netns

    def put(self, old: bool, netns: Netns) -> "Pod":
        return self._replace(old=netns) if old else self._replace(here=netns)

    def places(self) -> tuple[bool, ...]:
        return (False,) if self.old is None else (False, True)


class World(NamedTuple):
    """`agent`: "dead", "alive" or "stopping"; `proxy`: "dead", "alive" (without a word from the agent), "connected"."""

    agent: str
    proxy: str
    pods: tuple[Pod, ...]

    def with_pod(self, index: int, pod: Pod) -> "World":
        return self._replace(pods=(*self.pods[:index], _tidy(pod), *self.pods[index + 1 :]))


def _tidy(pod: Pod) -> Pod:
    old = pod.old
    if old is not None and old.machine is None and not old.ears and (not old.alive or old.form == "nothing"):
        return pod._replace(old=None, succeeded=False)
    return pod


# ── The agent's workers ────────────────────────────────────────────────────────────────────────────────────────────
def start(lives: Lives, pod: Pod, old: bool, word: str) -> Pod:
    netns = pod.netns(old)
    if netns.machine is not None:
        raise Violation("two workers change one namespace (B46)")
    begun = lives.begun(word)
    return pod.put(old, netns._replace(machine=Machine(begun.life, begun.todo)))


def present(pod: Pod) -> bool | None:
    """Where the pod's present worker is: True in the old namespace; None without any."""
    if pod.here.machine is not None:
        return False
    return True if pod.old is not None and pod.old.machine is not None and not pod.succeeded else None


def tell(lives: Lives, pod: Pod, word: str) -> Pod:
    """The registry hands an event to the pod's present worker, or begins one."""
    old = present(pod)
    if old is not None:
        return deliver(lives, pod, old, word)
    if not word.startswith("seen"):
        return pod
    number = int(word[-1])
    if number == pod.here.number:
        return start(lives, pod, False, word)
    return start(lives, pod, True, word) if pod.old is not None and pod.old.number == number else pod


def deliver(lives: Lives, pod: Pod, old: bool, word: str) -> Pod:
    machine = pod.netns(old).machine
    assert machine is not None
    if not machine.todo:
        return _follow(lives, pod, old, machine, word)
    if word in machine.inbox[-1:]:
        return pod
    return pod.put(old, pod.netns(old)._replace(machine=machine._replace(inbox=(*machine.inbox, word))))


def outcome(lives: Lives, pod: Pod, old: bool, word: str) -> Pod:
    """The action under way has ended."""
    machine = pod.netns(old).machine
    assert machine is not None
    ended = machine._replace(todo=machine.todo[1:], outcomes=(*machine.outcomes, word))
    if ended.todo:
        return pod.put(old, pod.netns(old)._replace(machine=ended))
    return _follow(lives, pod, old, ended._replace(outcomes=ended.outcomes[1:]), ended.outcomes[0])


def _follow(lives: Lives, pod: Pod, old: bool, machine: Machine, word: str) -> Pod:
    """As the supervisor's worker: outcomes before what happened meanwhile, until there is something to do."""
    while True:
        stepped = lives.step(machine.life, word)
        machine = machine._replace(life=stepped.life, todo=stepped.todo, proving=machine.proving or stepped.proves)
        if lives.known[machine.life].state == "gone":
            return _ended(lives, pod, old, machine, stepped.begins)
        pod = pod.put(old, pod.netns(old)._replace(machine=machine))
        if stepped.begins:
            machine, pod = _pass_on(lives, _succeed(lives, pod, stepped.begins), old, machine)
        if machine.todo:
            return pod
        if machine.outcomes:
            word, machine = machine.outcomes[0], machine._replace(outcomes=machine.outcomes[1:])
        elif machine.inbox:
            word, machine = machine.inbox[0], machine._replace(inbox=machine.inbox[1:])
        else:
            return pod


def _ended(lives: Lives, pod: Pod, old: bool, machine: Machine, begins: str) -> Pod:
    known, netns = lives.known[machine.life], pod.netns(old)
    if known.announced:
        raise Violation("gone, and a proxy still counts as serving it")
    if netns.alive and netns.form != "nothing":
        raise Violation(f"gone, and the namespace holds {netns.form}")
    pod = pod.put(old, netns._replace(machine=None, enrolled=False, deaf=False))
    if begins:
        pod = _succeed(lives, pod, begins)
    for word in machine.inbox:
        if word.startswith(_TOLD):
            pod = tell(lives, pod, word)
    return pod


def _pass_on(lives: Lives, pod: Pod, old: bool, machine: Machine) -> tuple[Machine, Pod]:
    """What the source told meanwhile goes to the life that has just begun, before anything told later."""
    for word in machine.inbox:
        if word.startswith(_TOLD):
            pod = tell(lives, pod, word)
    machine = machine._replace(inbox=tuple(word for word in machine.inbox if word == "stop" or word[:4] not in _TOLD))
    return machine, pod.put(old, pod.netns(old)._replace(machine=machine))


def _succeed(lives: Lives, pod: Pod, word: str) -> Pod:
    number = int(word[-1])
    if number == pod.here.number:
        return start(lives, pod._replace(succeeded=True), False, word)
    raise Violation(f"a life is begun in a namespace that is not the pod's: {word}")


# ── What proxy and store hold of a pod ─────────────────────────────────────────────────────────────────────────────
def served(pod: Pod, old: bool) -> Pod:
    """The proxy listens in this namespace, and in no other of the same uid."""
    pod = pod.put(old, pod.netns(old)._replace(ears="proxy", deaf=False))
    if pod.old is None:
        return pod
    other = pod.netns(not old)
    return pod.put(not old, other._replace(ears="") if other.ears else other)


def released(pod: Pod, *, connected: bool) -> Pod:
    """Proxy (if it hears) and store let go of the uid; the proxy closes what is steered to it."""
    for old in pod.places():
        netns = pod.netns(old)
        if netns.ears == "store" or (netns.ears and connected):
            if netns.alive and netns.form in CAPTURING:
                raise Violation("the proxy is sent away while traffic is led to it")
            netns = netns._replace(ears="")
        pod = pod.put(old, netns._replace(steered=netns.steered and not connected))
    return pod


def deafened(netns: Netns) -> Netns:
    """The listeners are lost with whoever held them. What was captured, or acknowledged and about to be, stays so."""
    machine = netns.machine
    acked = machine is not None and (
        (machine.todo[:1] and machine.todo[0].startswith("install")) or "acked" in machine.inbox
    )
    return netns._replace(ears="", deaf=netns.deaf or netns.tampered or netns.form != "nothing" or acked)


def netnses(world: World) -> Iterator[tuple[int, bool, Netns]]:
    for index, pod in enumerate(world.pods):
        for old in pod.places():
            yield index, old, pod.netns(old)
