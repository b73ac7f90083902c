"""What must be true of every state, and where a node ends that is left alone (fair: nothing fails, nobody meddles)."""

from collections.abc import Iterator
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
    deliver,
    netnses,
    present,
)
from tests.property.agent.reconcile.moves import (
    agent_goes_on,
    agent_starts,
    proxy_connects,
    snapshot_goes_on,
    without_agent,
)

FORMS: Final = {"on": {"rules"}, "other": {"others"}, "bad": WHOLE, "off": set(), "gone": set()}
"""What a pod that is proved holds; of one whose annotation is bad, what it held before."""


def check(lives: Lives, world: World) -> None:
    """Raises Violation.

    1. Traffic is led to a listener, the proxy's or the stored one. Allowed without: the listener was lost with a proxy
       that died (and was parked too long, or not deposited yet) while the pod was captured; it is refused until a
       proxy comes, which is what fail closed means. And a namespace that the pod has left.
    2. Once installed and while it is wanted, a pod is captured, unless somebody else took its rules away.
    3. A pod without a life, or disabled, holds nothing and nobody holds it, once a connected proxy is told.
    """
    for index, old, netns in netnses(world):
        pod = world.pods[index]
        if netns.alive and netns.form in CAPTURING and not netns.ears and not netns.deaf and not _left(netns, old):
            raise Violation("traffic is led to a port where nobody listens")
        if netns.alive and not old and netns.enrolled and netns.form not in WHOLE and not netns.tampered:
            raise Violation("an enrolled pod that is wanted goes past the mesh")
        if not old and world.agent == "alive" and world.proxy == "connected" and not pod.untold:
            _check_released(lives, pod, netns)


def _left(netns: Netns, old: bool) -> bool:
    return old and netns.machine is None


def _check_released(lives: Lives, pod: Pod, netns: Netns) -> None:
    machine = netns.machine
    if machine is not None and (machine.todo or lives.known[machine.life].state != "disabled"):
        return
    if machine is None and present(pod) is not None:  # not begun yet
        return
    if netns.ears:
        raise Violation("nobody wants the pod, and its namespace is held open by listeners")
    if netns.alive and netns.form != "nothing":
        raise Violation(f"nobody wants the pod, and its namespace holds {netns.form}")


def fair(lives: Lives, world: World) -> World | None:
    """What comes next when nothing fails any more; None at rest."""
    if world.agent == "dead":
        return agent_starts(lives, world)[1]
    if world.agent == "stopping" and all(netns.machine is None for _, _, netns in netnses(world)):
        return without_agent(world)
    if world.proxy == "dead":
        return world._replace(proxy="alive")
    if world.proxy == "alive" and world.agent == "alive":
        return proxy_connects(lives, world)[1]
    for index, pod in enumerate(world.pods):
        if pod.untold:
            return next(snapshot_goes_on(lives, world, index, pod))[1]
    return next(_works(lives, world), None)


def _works(lives: Lives, world: World) -> Iterator[World]:
    """Actions and drift before timers, connections that end before drains that run out."""
    for label, after in agent_goes_on(lives, world):
        if not label.startswith("due"):
            yield after
    for index, old, netns in netnses(world):
        if netns.machine is None:
            continue
        pod, known = world.pods[index], lives.known[netns.machine.life]
        if netns.steered and known.leaving:
            yield world.with_pod(index, pod.put(old, netns._replace(steered=False)))
        if known.timer and not at_rest(lives, pod, netns):
            yield world.with_pod(index, deliver(lives, pod, old, f"due {known.timer}"))


def at_rest(lives: Lives, pod: Pod, netns: Netns) -> bool:
    """A life whose timer would only find again what it found."""
    assert netns.machine is not None
    known = lives.known[netns.machine.life]
    if known.state == "proved":
        return netns.alive and netns.form in FORMS[pod.wish] and netns.ears == "proxy"
    final = pod.wish == "bad" or (pod.wish != "gone" and not netns.alive and not known.announced)
    return known.state == "failed" and known.looked_at and final


def check_end(lives: Lives, world: World) -> None:
    """A node at rest: every pod is where its source wants it, or failed and says why. Raises Violation."""
    for pod in world.pods:
        if pod.old is not None:
            raise Violation("a namespace that the pod has left is never let go")
        machine = pod.here.machine
        state = "" if machine is None else lives.known[machine.life].state
        reason = machine is not None and lives.known[machine.life].reason
        allowed = {
            "on": ("proved",),
            "other": ("proved",),
            "bad": ("proved", "failed"),
            "off": ("disabled",),
            "gone": ("",),
        }[pod.wish]
        if not pod.here.alive and pod.wish != "gone":
            allowed = ("failed", "disabled")
        if state not in allowed:
            raise Violation(f"wanted {pod.wish!r}, it ends as {state or 'no life'!r}")
        if not reason and (state in ("failed", "disabled") or (pod.wish == "bad" and state)):
            raise Violation(f"{state} without a reason")
        if state == "proved" and (pod.here.form not in FORMS[pod.wish] or pod.here.ears != "proxy"):
            raise Violation("proved, and it is not so")
        if pod.wish not in WANTED and (pod.here.ears or pod.here.form != "nothing"):
            raise Violation(f"nobody wants the pod, and it holds {pod.here.form}, {pod.here.ears or 'no listener'}")
