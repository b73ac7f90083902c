"""The files that a lab writes for agent and proxy."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
import yaml

from agent.lab import objects
from agent.lab.errors import LabError
from agent.lab.objects import PodFacts
from agent.lab.spec import PodSpec

WEB = PodFacts(
    PodSpec("web"), "uid-1", "hg-x-web", IPv4Address("10.77.0.2"), IPv6Address("fd77::2"), {"app": "web", "n": "1"}
)
FOUR_ONLY = PodFacts(PodSpec("four", families=(4,)), "uid-2", "hg-x-four", IPv4Address("10.77.0.3"), None, {})
PODS = {"web": WEB, "four": FOUR_ONLY}


def test_placeholders_become_addresses_and_other_text_stays() -> None:
    text = "a@b @web.address4@ [@web.address6@] @pod@ @unknown@ mail@example.com"
    assert objects.fill(text, PODS, {"pod": "me"}, "x") == "a@b 10.77.0.2 [fd77::2] me @unknown@ mail@example.com"


@pytest.mark.parametrize("text", ["@nobody.address4@", "@web.address5@", "@four.address6@"])
def test_a_placeholder_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(LabError, match=r"web\.yaml: @"):
        objects.fill(text, PODS, {}, "web.yaml")


def test_the_pods_file_lists_every_pod_with_its_namespace_and_addresses() -> None:
    assert yaml.safe_load(objects.pods_file([WEB, FOUR_ONLY])) == {
        "pods": [
            {
                "name": "web",
                "namespace": "default",
                "uid": "uid-1",
                "service_account": "default",
                "netns": "hg-x-web",
                "addresses": ["10.77.0.2", "fd77::2"],
                "labels": {"app": "web", "n": "1"},
                "annotations": {},
            },
            {
                "name": "four",
                "namespace": "default",
                "uid": "uid-2",
                "service_account": "default",
                "netns": "hg-x-four",
                "addresses": ["10.77.0.3"],
                "labels": {},
                "annotations": {},
            },
        ]
    }


def test_a_pod_that_is_not_listed_is_kept_from_the_agent() -> None:
    kept = replace(WEB, spec=replace(WEB.spec, listed=False))
    assert [pod["name"] for pod in yaml.safe_load(objects.pods_file([FOUR_ONLY, kept]))["pods"]] == ["four"]


def test_the_pod_object_is_what_kubernetes_would_show() -> None:
    pod = yaml.safe_load(objects.pod_object(WEB))
    assert (pod["apiVersion"], pod["kind"], pod["metadata"]["uid"]) == ("v1", "Pod", "uid-1")
    assert pod["metadata"]["labels"] == {"app": "web", "n": "1"}
    assert pod["status"]["podIPs"] == [{"ip": "10.77.0.2"}, {"ip": "fd77::2"}]
