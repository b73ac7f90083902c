"""What is told of a pod's wishes: Events and log lines, `headgate pods`, and the admin's answer to `rules plan`."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from agent.events import Events
from agent.metrics import AgentMetrics
from agent.plan import PlanSettings, build_plan
from agent.pods import Proof, Proofs, ProofStatus
from agent.reconcile import Life, State
from agent.supervisor.inside import Applied
from agent.supervisor.reports import PodReports
from agent.supervisor.unsteered import Unsteered
from agent.supervisor.views import plan_view, pod_view
from tests.unit.agent.lives import POD, enrolled
from tests.unit.agent.test_reports import flows

LIFE = enrolled().life
KEY = "headgate.io/exclude-outbound-ports"
COMPLAINT = f"annotation {KEY}: '70000' is no port: use 1 to 65535"
ALL = build_plan(POD, PlanSettings())
DIRECT = build_plan(replace(POD, annotations=((KEY, "5432"),)), PlanSettings())


class Scene:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.metrics = AgentMetrics()
        self.events = Events(lambda: self.now_s)
        self.reports = PodReports(self.metrics, self.events, lambda: self.now_s)

    def told(self) -> list[tuple[str, str, int]]:
        return [(event.reason.value, event.message, event.count) for event in self.events.all()]


def test_a_refused_annotation_is_told_once_however_often_it_is_found(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    complains = replace(LIFE, complaint=COMPLAINT)
    for life in (complains, replace(complains, reason=COMPLAINT), replace(LIFE, state=State.SEEN), complains):
        scene.reports.changed(life)
    assert scene.told() == [("AnnotationRefused", f"{COMPLAINT}; the rules in force stay as they are", 1)]
    assert caplog.messages == [f"pod default/web: {COMPLAINT}; the rules in force stay as they are"]
    scene.reports.changed(LIFE)  # put right, and proved
    scene.now_s += 100
    scene.reports.changed(complains)
    assert [reason for reason, _, _ in scene.told()] == ["AnnotationRefused", "AnnotationRefused"]


def test_a_pod_that_cannot_be_enrolled_is_told_with_its_reason() -> None:
    scene = Scene()
    for failures in (1, 2, 3):
        scene.reports.changed(replace(LIFE, state=State.FAILED, reason=COMPLAINT, failures=failures))
    assert scene.told() == [("RedirectionFailed", COMPLAINT, 1)]


def test_what_makes_a_pod_leave_is_told_when_it_has_failed_not_as_if_rules_stayed() -> None:
    scene = Scene()
    leaving = replace(LIFE, state=State.LEAVING, complaint="port 15001 is taken by process 7 (x)")
    scene.reports.changed(leaving)
    scene.reports.changed(replace(leaving, drained=True))
    assert scene.told() == []
    scene.reports.changed(replace(leaving, state=State.FAILED, installed=False, reason=leaving.complaint))
    assert scene.told() == [("RedirectionFailed", "port 15001 is taken by process 7 (x)", 1)]


def test_changed_rules_are_told_with_what_changed_and_who_stays_outside(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    with caplog.at_level(logging.INFO):
        scene.reports.rewished(LIFE, DIRECT, ALL, Applied(0.01, Unsteered(replanned=flows(1)), replanned=flows(1)))
    ((reason, message, _),) = scene.told()
    assert reason == "RedirectionChanged"
    assert "out-capture-skip-ports" in message and "added" not in message
    assert message.endswith("1 connections that they would steer stay outside the mesh until they end: "
                            "10.0.0.5:40000 - 10.0.0.9:80")  # fmt: skip
    assert caplog.messages == [f"pod default/web: {message}"]


def test_connections_that_other_rules_left_alone_are_counted_for_themselves() -> None:
    scene = Scene()
    scene.reports.unsteered(LIFE, Unsteered(replanned=flows(3)))
    series = 'headgate_unsteered_connections{namespace="default",pod="web",reason="rules_changed"} 3.0'
    assert series in scene.metrics.exposition().decode()
    shown = pod_view(LIFE, scene.reports.of(LIFE))["unsteered_connections"]
    assert shown == {"grandfathered": 0, "drift": 0, "rules_changed": 3}


# ── rules plan ─────────────────────────────────────────────────────────────────────────────────────────────────────
def view(life: Life = LIFE, **annotations: str) -> dict[str, Any]:
    given = tuple(sorted((key.replace("__", "/").replace("_", "-"), value) for key, value in annotations.items()))
    return plan_view(replace(life, pod=replace(POD, annotations=given)), PlanSettings())


def test_the_plan_says_who_won_and_who_was_overruled() -> None:
    shown = view(**{KEY: "5432", "traffic.kuma.io/exclude-outbound-ports": "25", "sidecar.istio.io/inject": "true"})
    assert shown["origins"] == [
        {
            "what": "exclude-outbound-ports",
            "key": KEY,
            "value": "5432",
            "overruled": [["traffic.kuma.io/exclude-outbound-ports", "25"]],
        }
    ]
    assert [noted["key"] for noted in shown["noted"]] == ["sidecar.istio.io/inject"]
    assert (shown["pod"], shown["error"]) == ("default/web", "")
    assert [rule["id"] for rule in shown["rules"]] == [rule.rule_id for rule in DIRECT.all_rules]


def test_of_an_annotation_that_cannot_be_honoured_the_error_and_the_rules_in_force_are_shown() -> None:
    shown = view(replace(LIFE, plan=DIRECT), **{KEY: "70000"})
    assert shown["error"] == COMPLAINT
    assert "out-capture-skip-ports" in [rule["id"] for rule in shown["rules"]]
    assert view(replace(LIFE, plan=None), **{KEY: "70000"})["rules"] == []


# ── Proofs of what is steered ──────────────────────────────────────────────────────────────────────────────────────
OK, FAILED, ABSENT, EXEMPT = (Proof(status, status.value) for status in
                              (ProofStatus.OK, ProofStatus.FAILED, ProofStatus.ABSENT, ProofStatus.EXEMPT))  # fmt: skip


@pytest.mark.parametrize(
    ("proofs", "hold"),
    [
        (Proofs(OK, OK, EXEMPT, EXEMPT), True),
        (Proofs(EXEMPT, EXEMPT, OK, ABSENT), True),
        (Proofs(OK, EXEMPT, OK, EXEMPT), True),
        (Proofs(OK, OK, EXEMPT, FAILED), False),
        (Proofs(OK, OK, ABSENT, ABSENT), False),
    ],
)
def test_where_nothing_is_steered_nothing_is_to_be_proved(proofs: Proofs, hold: bool) -> None:
    assert proofs.hold is hold


def test_an_exempt_proof_has_no_series() -> None:
    metrics = AgentMetrics()
    metrics.proofs(POD, Proofs(OK, OK, EXEMPT, FAILED))
    page = metrics.exposition().decode()
    assert 'proof="in4"' not in page and 'headgate_proof{namespace="default",pod="web",proof="in6"} 0.0' in page
