"""What a proxy that connects is told: it serves what is captured, and never learns of a pod that nobody will end."""

from agent.reconcile import Telling, telling
from agent.reconcile.life import (
    Acked,
    Drained,
    Drifted,
    Due,
    Inspected,
    Inspection,
    Left,
    NetnsLost,
    ProxyAbsent,
    Refused,
    Removed,
    SteeredLeft,
    Stop,
    Timer,
    Withdrawn,
)
from tests.unit.agent.lives import ADOPTED, DISABLED, DRAINING, FOUND, enrolled, told


def test_a_pod_nobody_has_looked_at_is_kept() -> None:
    assert telling(told().life) is Telling.KEEP
    assert telling(told(DISABLED).life) is Telling.KEEP
    assert telling(told().hears(Refused("netlink")).life) is Telling.KEEP


def test_what_waits_for_a_proxy_or_is_captured_is_served() -> None:
    stories = (
        told().hears(FOUND),
        told().hears(FOUND, ProxyAbsent()),
        told().hears(FOUND, Acked()),
        enrolled(),
        enrolled().hears(Drifted(("x",))),
        enrolled().hears(Drifted(("x",)), Refused("busy")),
        enrolled().hears(DISABLED),
        enrolled().hears(DISABLED, Refused("busy")),
        told(DISABLED).hears(ADOPTED),
    )
    assert [telling(story.life) for story in stories] == [Telling.SERVE] * len(stories)


def test_a_drain_keeps_the_proxy_it_has_and_needs_no_new_one() -> None:
    assert telling(enrolled().hears(DISABLED, Drained(), SteeredLeft(3)).life) is Telling.KEEP
    assert telling(told(DISABLED).hears(DRAINING).life) is Telling.KEEP


def test_from_its_withdrawal_on_a_pod_is_omitted() -> None:
    removed = enrolled().hears(Left(), Drained(), SteeredLeft(0), Removed())
    over = enrolled().hears(Stop(), Drained(), SteeredLeft(3))
    assert [telling(story.life) for story in (removed, over)] == [Telling.OMIT] * 2
    assert telling(over.hears(Withdrawn()).life) is Telling.OMIT  # its rules are still to be removed


def test_pods_without_a_part_in_the_mesh_are_omitted() -> None:
    stories = (
        told(DISABLED).hears(FOUND, Withdrawn()),
        told().hears(Inspected(Inspection(()))),
        enrolled().hears(NetnsLost("gone"), Withdrawn(), Due(Timer.RECHECK), Inspected(Inspection(()))),
        enrolled().hears(Left(), NetnsLost("gone"), Withdrawn()),
    )
    assert [telling(story.life) for story in stories] == [Telling.OMIT] * len(stories)
