"""What is taken out again leaves no trace: to the byte, whatever the text looks like."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.inject.manifests import Outcome, Surroundings, inject, read, uninject
from agent.inject.template import Template
from agent.inject.workloads import workloads as found_in
from tests.unit.agent.inject.ugly_yaml import workloads

ROOT = Path(__file__).resolve().parents[4]
ANYWHERE = Surroundings()
NATIVE, ORDINARY = Template(), Template(native=False)
OTHER = Template(
    image="registry.example:5000/headgate@sha256:" + "a" * 64, config_map="policy", backend="iptables-legacy"
)
_CLUSTERS = ("base", "gke", "k3s", "openshift")


def names(text: str, key: str) -> list[list[str]]:
    """Of every pod in it."""
    listed = []
    for value in read(text).values:
        for workload in found_in(value):
            pod = value
            for step in (*workload.path, *workload.pod, "spec"):
                pod = pod[step]
            listed.append([one["name"] for one in pod.get(key) or []])
    return listed


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(workloads(), st.sampled_from((NATIVE, ORDINARY, OTHER)))
def test_uninjected_is_what_was_injected(text: str, template: Template) -> None:
    before = read(text)
    done = inject(before, template, ANYWHERE)
    assert all(report.outcome is Outcome.CHANGED for report in done.reports)
    key = "initContainers" if template.native else "containers"
    assert all("headgate-proxy" in listed for listed in names(done.text, key))
    again = inject(read(done.text), template, ANYWHERE)
    assert again.text == done.text
    assert uninject(read(done.text)).text == text


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(workloads())
def test_a_newer_one_takes_the_place_of_the_old_one(text: str) -> None:
    once = inject(read(text), OTHER, ANYWHERE).text
    for template in (NATIVE, ORDINARY):
        assert inject(read(once), template, ANYWHERE).text == inject(read(text), template, ANYWHERE).text


@pytest.mark.parametrize("name", _CLUSTERS)
@pytest.mark.parametrize("template", [NATIVE, ORDINARY], ids=["native", "ordinary"])
def test_rendered_manifests_as_anybody_could_have_them(name: str, template: Template) -> None:
    """Our own, with what keeps a sidecar out of them taken out."""
    text = (ROOT / f"agent/manifests/{name}.yaml").read_text()
    for ours, others in (
        ("hostNetwork: true", "hostNetwork: false"),
        ("headgate-system", "there"),
        ("inject:", "injected:"),
        ("1502", "2502"),
    ):
        text = text.replace(ours, others)
    done = inject(read(text), template, ANYWHERE)
    assert [report.outcome for report in done.reports] == [Outcome.CHANGED] * 2
    assert uninject(read(done.text)).text == text
