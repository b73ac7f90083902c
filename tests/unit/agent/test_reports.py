"""agent.supervisor.reports: what becomes a metric, a log line and an Event, of drift, connections and conntrack."""

import logging
from ipaddress import ip_address

import pytest

from agent.events import Events
from agent.kernel.conntrack import Table
from agent.metrics import AgentMetrics
from agent.plan import FlowKey
from agent.reconcile.life import Drifted
from agent.supervisor.inside import Applied
from agent.supervisor.reports import PodReports
from agent.supervisor.unsteered import Unsteered
from tests.unit.agent.lives import enrolled

LIFE = enrolled().life
GONE = Drifted(("table inet headgate is gone", "ip rule is missing"), "nft (pid 7)")


def flows(count: int) -> frozenset[FlowKey]:
    return frozenset((ip_address("10.0.0.5"), 40000 + number, ip_address("10.0.0.9"), 80) for number in range(count))


class Scene:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.metrics = AgentMetrics()
        self.events = Events(lambda: self.now_s)
        self.reports = PodReports(self.metrics, self.events, lambda: self.now_s)

    def page(self) -> str:
        return self.metrics.exposition().decode()

    def messages(self) -> list[tuple[str, str]]:
        return [(event.reason.value, event.message) for event in self.events.all()]


def test_drift_and_its_healing_are_counted_logged_and_told_with_who_did_it_and_what_it_cost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    with caplog.at_level(logging.INFO):
        scene.reports.drifted(LIFE, GONE)
        scene.now_s += 0.3
        slipped = flows(1)
        scene.reports.healed(LIFE, Applied(0.02, Unsteered(slipped=slipped), slipped=slipped, cut=2))
    what = "table inet headgate is gone; ip rule is missing, changed by nft (pid 7)"
    cost = (
        "1 connections went past the mesh meanwhile and live on: 10.0.0.5:40000 - 10.0.0.9:80; "
        "2 steered connections were cut"
    )
    assert scene.messages() == [
        ("RedirectionDrifted", what),
        ("RedirectionHealed", f"in force again: {cost} (was: {what})"),
    ]
    assert caplog.messages == [f"pod default/web drifted: {what}", f"pod default/web is healed: {cost}"]
    page = scene.page()
    assert 'headgate_drift_total{namespace="default",pod="web"} 1.0' in page
    assert 'headgate_heal_seconds_bucket{le="0.25"} 0.0' in page
    assert 'headgate_heal_seconds_bucket{le="0.5"} 1.0' in page
    assert 'headgate_unsteered_connections{namespace="default",pod="web",reason="drift"} 1.0' in page
    facts = scene.reports.of(LIFE)
    assert (facts.drifts, facts.drift, facts.unsteered.slipped) == (1, what, slipped)


def test_many_connections_are_named_to_ten(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.reports.healed(LIFE, Applied(0.0, Unsteered(), slipped=flows(13), ended=flows(13)))
    (_, message), *_ = scene.messages()
    assert message.count(" - 10.0.0.9:80") == 10 and "and 3 more" in message
    assert "and were reset" in message


def test_a_heal_that_found_the_plan_in_force_is_no_news() -> None:
    scene = Scene()
    scene.reports.healed(LIFE, Applied(0.0, Unsteered(flows(2)), changed=False))
    assert scene.messages() == []
    assert len(scene.reports.of(LIFE).unsteered.grandfathered) == 2


def test_a_heal_that_is_refused_is_told() -> None:
    scene = Scene()
    scene.reports.drifted(LIFE, Drifted(("x",)))
    scene.reports.not_healed(LIFE, "nft: busy")
    assert scene.messages() == [("RedirectionDrifted", "x"), ("RedirectionNotHealed", "nft: busy")]


def test_what_a_former_agent_left_damaged_is_told_when_it_cost_something() -> None:
    scene = Scene()
    scene.reports.installed(LIFE, Applied(0.0, Unsteered(flows(1))))
    assert scene.messages() == []
    scene.reports.installed(LIFE, Applied(0.0, Unsteered(slipped=flows(1)), slipped=flows(1)))
    assert [reason for reason, _ in scene.messages()] == ["RedirectionHealed"]


def test_a_full_conntrack_table_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    full = 'headgate_conntrack_full{namespace="default",pod="web"}'
    scene.reports.conntrack(LIFE, Table(10, 100))
    assert full not in scene.page() and caplog.messages == []
    for dropped in (2, 30):
        scene.reports.conntrack(LIFE, Table(100, 100, dropped))
    assert f"{full} 1.0" in scene.page()
    (message,) = caplog.messages
    assert "(100 of 100 entries, 2 packets dropped)" in message and "nf_conntrack_max" in message
    assert [reason for reason, _ in scene.messages()] == ["ConntrackTableFull"]
    scene.reports.conntrack(LIFE, Table(97, 100, 31))  # one was refused: it is full between two looks
    assert f"{full} 1.0" in scene.page()
    scene.reports.conntrack(LIFE, Table(97, 100, 31))
    assert f"{full} 0.0" in scene.page() and "has room again" in caplog.messages[-1]


def test_others_chains_are_counted_and_made_printable(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.reports.foreign(LIFE, ("table ip \x1b[2J: chain x",))
    assert 'headgate_foreign_chains{namespace="default",pod="web"} 1.0' in scene.page()
    assert scene.reports.of(LIFE).foreign == ("table ip \\x1b[2J: chain x",)
    scene.reports.foreign(LIFE, ())
    assert 'headgate_foreign_chains{namespace="default",pod="web"} 0.0' in scene.page()
    assert len(caplog.messages) == 1


def test_what_is_known_ends_with_the_life() -> None:
    scene = Scene()
    scene.reports.drifted(LIFE, GONE)
    scene.reports.forget(LIFE)
    assert scene.reports.of(LIFE).drifts == 0
