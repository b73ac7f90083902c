"""Tables that fill, and descriptors that run out, are told before they do."""

from dataclasses import replace

import pytest

from agent.doctor.facts import Descriptors, MeshProcess, Tracking
from agent.doctor.findings import Severity
from proxy.api.descriptor_needs import AGENT, SUPERVISOR, WORKER, Need
from tests.unit.agent.doctor.nodes import HEALTHY, OWN, POD, found, the_one, with_pod

SERIOUS, WARNING = Severity.SERIOUS, Severity.WARNING


@pytest.mark.parametrize(
    ("entries", "severity"), [(750, WARNING), (949, WARNING), (950, SERIOUS), (1000, SERIOUS), (749, None)]
)
def test_conntrack_that_fills(entries: int, severity: Severity | None) -> None:
    facts = with_pod(replace(POD, tracking=Tracking(entries, 1000, 0, 0)))
    assert [(one.id, one.severity) for one in found(facts)] == ([("conntrack", severity)] if severity else [])


def test_conntrack_that_has_dropped_is_told_when_it_has_room_again() -> None:
    finding = the_one(replace(HEALTHY, node=replace(OWN, tracking=Tracking(10, 1000, 7, 9))))
    assert (finding.id, finding.severity, finding.where) == ("conntrack", WARNING, "node")
    assert "dropped 7 packets and evicted 9" in finding.what


def test_a_worker_whose_descriptors_do_not_reach_for_its_pods_is_told_before_they_end() -> None:
    many = tuple(replace(POD, where=f"pod default/web-{number}") for number in range(60))
    worker, supervisor = MeshProcess(12, "worker", 1024, 300), MeshProcess(11, "proxy", 1024, 480)
    finding = the_one(replace(HEALTHY, pods=many, descriptors=Descriptors(1, 1000, (worker, supervisor))))
    assert (finding.id, finding.severity) == ("descriptors", WARNING)
    needed = WORKER.of(60) + 480
    assert "worker (pid 12)" in finding.what and f"for 60 pods and 480 sockets it reckons with {needed}" in finding.what


@pytest.mark.parametrize(("role", "need"), [("agent", AGENT), ("proxy", SUPERVISOR)])
def test_who_is_near_the_pods_that_its_limit_is_enough_for_is_told_before_the_next_one_is_refused(
    role: str, need: Need
) -> None:
    """By what it refuses them by itself."""
    limit = 1024
    for pods, told in ((need.most_pods(round(0.8 * limit)), 0), (need.most_pods(round(0.8 * limit)) + 1, 1)):
        assert pods < need.most_pods(limit)
        many = tuple(replace(POD, where=f"pod default/web-{number}") for number in range(pods))
        facts = replace(HEALTHY, pods=many, descriptors=Descriptors(1, 1000, (MeshProcess(10, role, limit, 9),)))
        assert [(one.id, one.severity) for one in found(facts)] == [("descriptors", WARNING)] * told


def test_a_proxy_without_descriptors_is_serious() -> None:
    finding = the_one(replace(HEALTHY, descriptors=Descriptors(1, 1000, (MeshProcess(11, "proxy", 1000, 990),))))
    assert finding.severity is SERIOUS


@pytest.mark.parametrize(("allocated", "severity"), [(800, WARNING), (950, SERIOUS)])
def test_the_nodes_file_table(allocated: int, severity: Severity) -> None:
    finding = the_one(replace(HEALTHY, descriptors=Descriptors(allocated, 1000, ())))
    assert (finding.id, finding.severity) == ("descriptors", severity)
