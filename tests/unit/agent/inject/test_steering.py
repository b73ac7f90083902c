"""Annotations of four meshes as arguments of `headgate init`: what is steered is what a node agent would steer."""

from dataclasses import replace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agent.cli.steering import steering_options
from agent.inject.errors import Refused
from agent.inject.steering import arguments
from agent.plan import PlanSettings
from agent.plan.annotations import steering_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Steering
from agent.pods import sorted_pairs

OURS = "headgate.io/"
ADMIN = ("--exclude-inbound-ports", "15020-15021")


def steered(words: tuple[str, ...]) -> Steering:
    """As `headgate init` reads them."""
    found: list[Steering] = []

    @click.command()
    @steering_options()
    def command(steering: Steering, settings: PlanSettings) -> None:
        assert settings == PlanSettings(owners=settings.owners)
        found.append(steering)

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    return found[0]


def test_without_annotations_only_the_sidecars_own_ports_are_out() -> None:
    assert arguments({}) == (ADMIN, ())


@pytest.mark.parametrize(
    "annotations",
    [
        {f"{OURS}exclude-outbound-ports": "5432, 3000-3005"},
        {f"{OURS}exclude-outbound-cidrs": "10.1.0.0/16,fd00::/8"},
        {f"{OURS}include-outbound-ports": "80,443"},
        {f"{OURS}include-outbound-cidrs": "10.0.0.0/8"},
        {f"{OURS}include-outbound-ports": "80", f"{OURS}include-outbound-cidrs": "10.0.0.0/8"},
        {f"{OURS}include-outbound-ports": "*"},
        {f"{OURS}include-outbound-ports": ""},
        {"traffic.sidecar.istio.io/includeOutboundPorts": "80"},
        {"traffic.sidecar.istio.io/includeOutboundIPRanges": ""},
        {"traffic.sidecar.istio.io/includeInboundPorts": "8080"},
        {f"{OURS}include-inbound-ports": ""},
        {f"{OURS}include-inbound-ports": "*"},
        {f"{OURS}exclude-inbound-ports": "9090", "config.linkerd.io/skip-inbound-ports": "1"},
        {"config.linkerd.io/skip-inbound-ports": "25,4222", "config.linkerd.io/skip-subnets": "10.1.0.0/16"},
        {"traffic.kuma.io/exclude-outbound-ports-for-uids": "tcp:22:1000;80:1002"},
        {f"{OURS}exclude-uids": "0,2000-2010", f"{OURS}include-gids": "1,2"},
        {f"{OURS}exclude-gids": "7", f"{OURS}exclude-interfaces": "eth1,net+"},
        {f"{OURS}virtual-interfaces": "virbr0:10.0.0.0/8,tap+"},
        {"traffic.sidecar.istio.io/kubevirtInterfaces": "virbr0"},
        {f"{OURS}udp": "deny-443", "traffic.kuma.io/drop-invalid-packets": "true"},
        {f"{OURS}drop-invalid": "false", "ambient.istio.io/bypass-inbound-capture": "true"},
        {f"{OURS}exclude-outbound-ports": "", "traffic.kuma.io/exclude-outbound-ports": "80"},
    ],
    ids=str,
)
def test_init_reads_what_the_annotations_say(annotations: dict[str, str]) -> None:
    words, warnings = arguments(annotations)
    wanted = steering_of(sorted_pairs(annotations.items()), Steering()).steering
    ports = wanted.exclude_inbound_ports | Ranges.of(15020, 15021)
    assert steered(words) == replace(wanted, exclude_inbound_ports=ports)
    assert warnings == ()


def test_queries_are_not_led_to_a_proxy_that_does_not_answer_them() -> None:
    words, (warning,) = arguments({"ambient.istio.io/dns-capture": "true"})
    assert words == ADMIN
    assert warning.endswith("annotation ambient.istio.io/dns-capture is left out")
    assert arguments({f"{OURS}dns-capture": "disabled"}) == (ADMIN, ())


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({f"{OURS}exclude-outbound-ports": "http"}, r"^annotation headgate.io/exclude-outbound-ports: .*'http'"),
        ({f"{OURS}exclude-outbound-port": "1"}, r"is headgate.io/exclude-outbound-ports meant\?"),
        ({f"{OURS}include-inbound-ports": "15021"}, r"^annotation headgate.io/include-inbound-ports"),
        ({f"{OURS}include-gids": "1", f"{OURS}exclude-gids": "2"}, r"^annotation headgate.io/include-gids, annotation"),
        ({"sidecar.istio.io/interceptionMode": "TPROXY"}, r"^annotation sidecar.istio.io/interceptionMode"),
        ({f"{OURS}exclude-interfaces": 'eth0"; reboot'}, r"^annotation headgate.io/exclude-interfaces"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(annotations: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        arguments(annotations)
