"""Everything that may happen next on the node: the agent goes on, and everybody else does as they please."""

from collections.abc import Iterator
from typing import Final

from tests.property.agent.reconcile.actions import perform, unserved
from tests.property.agent.reconcile.lives import Lives, seen_word
from tests.property.agent.reconcile.model import (
    CAPTURING,
    WANTED,
    WHOLE,
    Machine,
    Netns,
    Pod,
    World,
    deafened,
    deliver,
    netnses,
    present,
    released,
    served,
    start,
    tell,
)

Move = tuple[str, World]

_WISHES: Final = ("on", "other", "off", "bad", "gone")
_TAMPERED: Final = {
    "rules": ("damaged", "path", "nothing"), "others": ("damaged",),
    "damaged": ("nothing",), "drain": ("path", "nothing"),
}  # fmt: skip
"""What somebody else makes of our rules: one is changed, the tables are deleted, everything is flushed."""
_INBOX: Final = 1
"""How many events may wait behind an action under way before the source tells another one."""


def moves(lives: Lives, world: World) -> Iterator[Move]:
    yield from agent_goes_on(lives, world)
    yield from _proxy(lives, world)
    yield from _agent(lives, world)
    for index in range(len(world.pods)):
        yield from _source(lives, world, index)
    for index, old, netns in netnses(world):
        if netns.alive:
            yield from _namespace(world, index, old, netns)


# ── The agent's workers ────────────────────────────────────────────────────────────────────────────────────────────
def agent_goes_on(lives: Lives, world: World) -> Iterator[Move]:
    """What the agent does by itself, or hears of the kernel. For each worker, what goes well comes first."""
    if world.agent == "dead":
        return
    for index, old, netns in netnses(world):
        machine = netns.machine
        if machine is None:
            continue
        pod = world.pods[index]
        if machine.todo:
            yield from perform(lives, world, index, old)
        elif lives.known[machine.life].timer:
            due = f"due {lives.known[machine.life].timer}"
            yield due, world.with_pod(index, deliver(lives, pod, old, due))
        if drift_is_heard(lives, netns, machine):
            yield "drift is heard", world.with_pod(index, deliver(lives, pod, old, "drifted"))
        if machine.proving:
            yield from _proof(lives, world, index, old, netns, machine)


def drift_is_heard(lives: Lives, netns: Netns, machine: Machine) -> bool:
    known = lives.known[machine.life]
    if not netns.alive or not known.installed or not known.form or "drifted" in machine.inbox:
        return False
    return netns.form != known.form


def _proof(lives: Lives, world: World, index: int, old: bool, netns: Netns, machine: Machine) -> Iterator[Move]:
    proved = netns.alive and netns.form in WHOLE and netns.ears == "proxy" and world.proxy == "connected"
    done = world.pods[index].put(old, netns._replace(machine=machine._replace(proving=False)))
    for word in ("proved", "unproved") if proved else ("unproved",) if netns.alive else ("lost",):
        yield word, world.with_pod(index, deliver(lives, done, old, word))
    if "proofs wait" not in machine.inbox:
        yield "proofs wait", world.with_pod(index, deliver(lives, world.pods[index], old, "proofs wait"))


# ── Agent ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _agent(lives: Lives, world: World) -> Iterator[Move]:
    if world.agent == "dead":
        yield agent_starts(lives, world)
        return
    yield from _agent_is_killed(world)
    if world.agent == "stopping":
        if all(netns.machine is None for _, _, netns in netnses(world)):
            yield "agent ends", without_agent(world)
        return
    stopping = world._replace(agent="stopping")
    for index, old, netns in netnses(world):
        unwanted = stopping.pods[index].put(old, netns._replace(enrolled=False))
        if netns.machine is not None:
            unwanted = deliver(lives, unwanted, old, "stop")
        stopping = stopping.with_pod(index, unwanted)
    yield "agent is told to stop", stopping


def agent_starts(lives: Lives, world: World) -> Move:
    """The source tells of its pods. What it does not name is not touched; a former sandbox dies by itself."""
    world = world._replace(agent="alive")
    for index, pod in enumerate(world.pods):
        if pod.wish != "gone":
            pod = start(lives, pod, False, seen_word(pod.wish, pod.here.number))
        world = world.with_pod(index, pod)
    return "agent starts", world


def _agent_is_killed(world: World) -> Iterator[Move]:
    """At any instant; also between an install's return path and its tables, or a removal's tables and return path."""
    yield "agent is killed", without_agent(world)
    for index, old, netns in netnses(world):
        if netns.machine is None or not netns.machine.todo or not netns.alive:
            continue
        action = netns.machine.todo[0]
        if (action, netns.form) == ("install", "nothing") or (action == "remove" and netns.form != "nothing"):
            half = world.pods[index].put(old, netns._replace(form="path"))
            yield f"agent is killed in {action}", without_agent(world.with_pod(index, half))


def without_agent(world: World) -> World:
    """With the agent goes its store; the proxy serves on."""
    for index, old, netns in netnses(world):
        alone = deafened(netns) if netns.ears == "store" else netns
        if old or world.pods[index].wish == "gone":  # the next agent will not hear of it: see `agent_starts`
            alone = deleted(alone)
        pod = world.pods[index]._replace(untold="")
        world = world.with_pod(index, pod.put(old, alone._replace(machine=None)))
    return world._replace(agent="dead", proxy="alive" if world.proxy == "connected" else world.proxy)


# ── Proxy ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _proxy(lives: Lives, world: World) -> Iterator[Move]:
    for index, pod in enumerate(world.pods):
        if pod.untold:
            yield from snapshot_goes_on(lives, world, index, pod)
    if world.proxy == "dead":
        yield "proxy starts", world._replace(proxy="alive")
        if world.agent != "dead" and _idle(world):
            yield "listeners are parked", _parked(lives, world)
        return
    yield "proxy is killed", _without_proxy(world)
    if world.proxy == "alive" and world.agent == "alive":
        yield proxy_connects(lives, world)


def proxy_connects(lives: Lives, world: World) -> Move:
    for index, pod in enumerate(world.pods):
        old = present(pod)
        machine = None if old is None else pod.netns(old).machine
        told = "omit" if machine is None else lives.known[machine.life].telling
        world = world.with_pod(index, pod._replace(untold=told))
    return "proxy connects", world._replace(proxy="connected")


def snapshot_goes_on(lives: Lives, world: World, index: int, pod: Pod) -> Iterator[Move]:
    """One pod's part. A pod whose namespace cannot be opened just now is kept, as one that is not located."""
    told = pod._replace(untold="")
    old = present(pod)
    if pod.untold == "omit":
        yield "snapshot omits", world.with_pod(index, _let_go(told))
        return
    if pod.untold == "serve" and old is not None and pod.netns(old).alive:
        yield "snapshot is acked", world.with_pod(index, tell(lives, served(told, old), "acked"))
        if pod.netns(old).ears != "proxy":
            yield "snapshot is nacked", world.with_pod(index, tell(lives, unserved(told, old), "nacked"))
    yield "snapshot keeps", world.with_pod(index, told)


def _let_go(pod: Pod) -> Pod:
    """The proxy closes the listeners and lets connections end by themselves for a while."""
    kept = {old: pod.netns(old).steered for old in pod.places()}
    pod = released(pod, connected=True)
    for old, steered in kept.items():
        pod = pod.put(old, pod.netns(old)._replace(steered=steered))
    return pod


def _idle(world: World) -> bool:
    """No action of the agent takes as long as --park-timeout."""
    return not any(netns.machine and netns.machine.todo for _, _, netns in netnses(world))


def _parked(lives: Lives, world: World) -> World:
    for index, old, netns in netnses(world):
        if netns.ears == "store":
            world = world.with_pod(index, world.pods[index].put(old, deafened(netns)))
    for index, old, netns in netnses(world):
        if netns.machine is not None:
            world = world.with_pod(index, deliver(lives, world.pods[index], old, "parked"))
    return world


def _without_proxy(world: World) -> World:
    """Its connections end; its listeners live on in the store of an agent that it had deposited them with."""
    for index, old, netns in netnses(world):
        pod = world.pods[index]
        if netns.ears == "proxy":
            stored = world.proxy == "connected" and not pod.untold and netns.alive
            netns = netns._replace(ears="store") if stored else deafened(netns)
        world = world.with_pod(index, pod.put(old, netns._replace(steered=False)))
    for index, pod in enumerate(world.pods):
        world = world.with_pod(index, pod._replace(untold=""))
    return world._replace(proxy="dead")


# ── Source and kernel ──────────────────────────────────────────────────────────────────────────────────────────────
def _source(lives: Lives, world: World, index: int) -> Iterator[Move]:
    """The pod is labelled, annotated, forgotten; its sandbox is made anew."""
    pod = world.pods[index]
    old = present(pod)
    machine = None if old is None else pod.netns(old).machine
    if machine is not None and len(machine.inbox) > _INBOX:
        return
    for wish in _WISHES:
        if wish != pod.wish:
            yield f"source says {wish}", world.with_pod(index, _told(lives, world, _wished(world, pod, wish)))
    if pod.old is None and pod.wish != "gone":
        here = pod.here
        anew = Netns(3 - here.number)
        left = here._replace(enrolled=False) if world.agent == "alive" else deleted(here)
        moved = pod._replace(here=anew, old=left)
        yield "sandbox is made anew", world.with_pod(index, _told(lives, world, moved))


def _wished(world: World, pod: Pod, wish: str) -> Pod:
    here = pod.here._replace(enrolled=pod.here.enrolled and wish in WANTED)
    if wish == "gone" and world.agent != "alive":
        here = deleted(here)  # nobody would ever hear of it: what no source names is not touched
    return pod._replace(wish=wish, here=here)


def _told(lives: Lives, world: World, pod: Pod) -> Pod:
    if world.agent != "alive":
        return pod
    return tell(lives, pod, "left" if pod.wish == "gone" else seen_word(pod.wish, pod.here.number))


def deleted(netns: Netns) -> Netns:
    return netns._replace(alive=False, form="nothing", steered=False, enrolled=False, tampered=False, deaf=False)


def _namespace(world: World, index: int, old: bool, netns: Netns) -> Iterator[Move]:
    pod = world.pods[index]
    yield "namespace is deleted", world.with_pod(index, pod.put(old, deleted(netns)))
    for form in _TAMPERED.get(netns.form, ()):
        lives_on = netns.steered and form == "damaged"  # else the anchor is gone too
        tampered = netns._replace(form=form, steered=lives_on, tampered=True)
        yield f"somebody makes it {form}", world.with_pod(index, pod.put(old, tampered))
    if netns.steered:
        yield "connection ends", world.with_pod(index, pod.put(old, netns._replace(steered=False)))
    elif netns.form in CAPTURING and netns.ears == "proxy":
        yield "connection is steered", world.with_pod(index, pod.put(old, netns._replace(steered=True)))
