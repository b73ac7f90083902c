"""agent.plan.annotations: four meshes' words for what is steered; who wins is told, what is wrong is named."""

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent.plan.annotation_keys import ASIDES, FAMILIES, KNOWN, Mesh
from agent.plan.annotations import NODE_WIDE, Noted, Origin, Wishes, steering_of
from agent.plan.errors import InvalidPlan
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import DnsCapture, Included, OwnerPorts, Steering, UdpPolicy, VirtualInterface

DEFAULTS = Steering()
DOCS = Path(__file__).parents[3] / "docs" / "annotations.md"


def wishes(defaults: Steering = DEFAULTS, /, **annotations: str) -> Wishes:
    return steering_of(tuple(sorted(annotations.items())), defaults)


def said(annotations: dict[str, str], defaults: Steering = DEFAULTS) -> Steering:
    return steering_of(tuple(sorted(annotations.items())), defaults).steering


H, I, L, K = "headgate.io/", "traffic.sidecar.istio.io/", "config.linkerd.io/", "traffic.kuma.io/"  # noqa: E741
NET = ip_network("10.1.0.0/16")


@pytest.mark.parametrize(
    ("key", "value", "steering"),
    [
        (H + "exclude-outbound-ports", "5432,3000-3005", {"exclude_outbound_ports": Ranges.of(5432, (3000, 3005))}),
        (I + "excludeOutboundPorts", "5432", {"exclude_outbound_ports": Ranges.of(5432)}),
        (
            L + "skip-outbound-ports",
            "1-8079,8081-65535",
            {"exclude_outbound_ports": Ranges.of((1, 8079), (8081, 65535))},
        ),
        (K + "exclude-outbound-ports", "5432", {"exclude_outbound_ports": Ranges.of(5432)}),
        (H + "exclude-outbound-cidrs", "10.1.0.0/16", {"exclude_outbound_networks": (NET,)}),
        (I + "excludeOutboundIPRanges", "10.1.0.0/16", {"exclude_outbound_networks": (NET,)}),
        (K + "exclude-outbound-ips", "10.1.0.0/16", {"exclude_outbound_networks": (NET,)}),
        (H + "exclude-inbound-ports", "9090", {"exclude_inbound_ports": Ranges.of(9090)}),
        (I + "excludeInboundPorts", "9090", {"exclude_inbound_ports": Ranges.of(9090)}),
        (L + "skip-inbound-ports", "9090", {"exclude_inbound_ports": Ranges.of(9090)}),
        (K + "exclude-inbound-ports", "9090", {"exclude_inbound_ports": Ranges.of(9090)}),
        (H + "exclude-inbound-cidrs", "10.1.0.0/16", {"exclude_inbound_networks": (NET,)}),
        (L + "skip-subnets", "10.1.0.0/16", {"exclude_inbound_networks": (NET,)}),
        (K + "exclude-inbound-ips", "10.1.0.0/16", {"exclude_inbound_networks": (NET,)}),
        (H + "include-inbound-ports", "8080", {"include_inbound_ports": Ranges.of(8080)}),
        (H + "include-inbound-ports", "", {"include_inbound_ports": Ranges()}),
        (H + "include-inbound-ports", "*", {}),
        (I + "includeInboundPorts", "8080", {"include_inbound_ports": Ranges.of(8080)}),
        (I + "includeInboundPorts", "", {"include_inbound_ports": Ranges()}),
        ("ambient.istio.io/bypass-inbound-capture", "true", {"include_inbound_ports": Ranges()}),
        ("ambient.istio.io/bypass-inbound-capture", "false", {}),
        (H + "include-outbound-ports", "80", {"include_outbound": Included(Ranges.of(80))}),
        (H + "include-outbound-cidrs", "10.1.0.0/16", {"include_outbound": Included(networks=(NET,))}),
        (H + "include-outbound-cidrs", "*", {}),
        (I + "includeOutboundIPRanges", "", {"include_outbound": Included()}),
        (I + "includeOutboundIPRanges", "*", {}),
        (I + "includeOutboundPorts", "80", {}),
        (H + "exclude-uids", "0,2000-2010", {"exclude_uids": Ranges.of(0, (2000, 2010))}),
        (H + "exclude-gids", "2000", {"exclude_gids": Ranges.of(2000)}),
        (H + "include-gids", "2000", {"include_gids": Ranges.of(2000)}),
        (H + "exclude-interfaces", "net1,br+", {"exclude_interfaces": ("net1", "br+")}),
        (I + "excludeInterfaces", "net1", {"exclude_interfaces": ("net1",)}),
        (H + "virtual-interfaces", "br+:10.1.0.0/16", {"virtual_interfaces": (VirtualInterface("br+", (NET,)),)}),
        (I + "kubevirtInterfaces", "k6t0", {"virtual_interfaces": (VirtualInterface("k6t0"),)}),
        ("istio.io/reroute-virtual-interfaces", "k6t0", {"virtual_interfaces": (VirtualInterface("k6t0"),)}),
        (H + "udp", "deny-443", {"udp": UdpPolicy.DENY_443}),
        (H + "dns-capture", "enabled", {"dns": DnsCapture()}),
        (H + "dns-capture", "false", {}),
        ("ambient.istio.io/dns-capture", "true", {"dns": DnsCapture()}),
        (H + "drop-invalid", "true", {"drop_invalid": True}),
        (K + "drop-invalid-packets", "true", {"drop_invalid": True}),
    ],
)
def test_each_key_says_what_its_mesh_means_by_it(key: str, value: str, steering: dict[str, object]) -> None:
    assert said({key: value}) == replace(DEFAULTS, **steering)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [H + "exclude-outbound-ports-for-uids", K + "exclude-outbound-ports-for-uids"])
def test_ports_of_users_in_kumas_form(key: str) -> None:
    tcp, both = frozenset({Protocol.TCP}), frozenset(Protocol)
    expected = (OwnerPorts(tcp, Ranges.of(53), Ranges.of(2000)), OwnerPorts(both, Ranges.of(80), Ranges.of(1)))
    assert said({key: "tcp:53:2000;80:1"}).exclude_owner_ports == expected


def test_dns_can_be_led_away_from_named_servers_only() -> None:
    steering = said({H + "dns-capture": "10.96.0.10,fd00::10"})
    assert steering.dns is not None and [str(server) for server in steering.dns.servers or ()] == [
        "10.96.0.10",
        "fd00::10",
    ]


def test_ports_and_networks_of_one_mesh_are_included_together() -> None:
    expected = Included(Ranges.of(80), (NET,))
    assert (
        said({H + "include-outbound-ports": "80", H + "include-outbound-cidrs": "10.1.0.0/16"}).include_outbound
        == expected
    )
    istio = {I + "includeOutboundPorts": "80", I + "includeOutboundIPRanges": "10.1.0.0/16"}
    assert said(istio).include_outbound == expected


# ── Who wins ───────────────────────────────────────────────────────────────────────────────────────────────────────
PORTS = {
    H + "exclude-outbound-ports": "1",
    I + "excludeOutboundPorts": "2",
    L + "skip-outbound-ports": "3",
    K + "exclude-outbound-ports": "4",
}


@pytest.mark.parametrize("first", range(4))
def test_headgate_before_istio_before_linkerd_before_kuma_never_merged(first: int) -> None:
    given = dict(list(PORTS.items())[first:])
    found = steering_of(tuple(sorted(given.items())), DEFAULTS)
    (key, value), *overruled = given.items()
    assert found.steering.exclude_outbound_ports == Ranges.of(int(value))
    assert found.origins == (Origin("exclude-outbound-ports", key, value, tuple(overruled)),)


def test_each_family_of_keys_is_decided_for_itself() -> None:
    steering = said(
        {H + "exclude-outbound-ports": "1", I + "excludeInboundPorts": "2", K + "exclude-outbound-ips": "::/0"}
    )
    assert (steering.exclude_outbound_ports, steering.exclude_inbound_ports) == (Ranges.of(1), Ranges.of(2))
    assert steering.exclude_outbound_networks == (ip_network("::/0"),)


def test_an_inclusion_of_ours_overrules_both_of_istios() -> None:
    given = {H + "include-outbound-ports": "80", I + "includeOutboundPorts": "81", I + "includeOutboundIPRanges": "*"}
    found = steering_of(tuple(sorted(given.items())), DEFAULTS)
    assert found.steering.include_outbound == Included(Ranges.of(80))
    overruled = ((I + "includeOutboundPorts", "81"), (I + "includeOutboundIPRanges", "*"))
    assert found.origins == (Origin("include-outbound", H + "include-outbound-ports", "80", overruled),)


def test_who_is_overruled_is_not_read_and_may_be_wrong() -> None:
    assert said(
        {H + "exclude-outbound-ports": "1", L + "skip-outbound-ports": "x"}
    ).exclude_outbound_ports == Ranges.of(1)


def test_a_pods_annotation_replaces_the_nodes_default_of_its_family_and_nothing_else() -> None:
    node = replace(DEFAULTS, exclude_outbound_ports=Ranges.of(25), udp=UdpPolicy.DENY)
    found = steering_of(((H + "exclude-outbound-ports", "5432"),), node)
    assert found.steering == replace(node, exclude_outbound_ports=Ranges.of(5432))
    assert found.origins == (
        Origin("exclude-outbound-ports", H + "exclude-outbound-ports", "5432", ((NODE_WIDE, "25"),)),
        Origin("udp", NODE_WIDE, "deny"),
    )


def test_an_empty_annotation_takes_the_nodes_exclusion_away() -> None:
    node = replace(DEFAULTS, exclude_outbound_ports=Ranges.of(25))
    assert said({H + "exclude-outbound-ports": ""}, node) == DEFAULTS


def test_other_annotations_say_nothing() -> None:
    assert steering_of(((H + "workers", "4"), ("config.linkerd.io/opaque-ports", "x")), DEFAULTS) == Wishes(DEFAULTS)


# ── What is wrong ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (H + "exclude-outbound-ports", "http", "'http' is no port"),
        (H + "exclude-outbound-ports", "80,http", "value '80,http': 'http' is no port"),
        (I + "excludeInboundPorts", "0", "'0' is no port: use 1 to 65535"),
        (L + "skip-inbound-ports", "70000", "'70000' is no port: use 1 to 65535"),
        (K + "exclude-outbound-ports", "10-5", "'10-5' ends before it begins"),
        (H + "exclude-outbound-cidrs", "10.0.0.0/33", "'10.0.0.0/33' is no address and no CIDR"),
        (H + "exclude-interfaces", 'eth0" accept; #', "is no interface name"),
        (I + "excludeInterfaces", "`reboot`", "'`reboot`' is no interface name"),
        (H + "exclude-uids", "envoy", "'envoy' is no id"),
        (H + "dns-capture", "sometimes", "'sometimes' is no address"),
        (H + "dns-capture", "", "'' says nothing: use enabled, disabled"),
        ("ambient.istio.io/bypass-inbound-capture", "", "'' is neither true nor false"),
        (H + "exclude-outbond-ports", "80", f"nobody knows this key; is {H}exclude-outbound-ports meant?"),
        (I + "excludeOutboundCIDRs", "x", "nobody knows this key"),
        ("sidecar.istio.io/interceptionMode", "TPROXY", "value 'TPROXY': connections are redirected"),
        ("sidecar.istio.io/interceptionMode", "NONE", "gets the label headgate.io/mesh: disabled"),
        ("sidecar.istio.io/status", "{}", "value '{}': another mesh steers this pod already"),
        ("ambient.istio.io/redirection", "enabled", "another mesh steers this pod already"),
        (K + "transparent-proxy-configmap-name", "mine", "value 'mine': what it excludes is not read here"),
        (K + "transparent-proxy-config", "{}", "what it excludes is not read here"),
    ],
)
def test_a_bad_annotation_is_named_with_key_value_and_reason(key: str, value: str, reason: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        said({key: value})
    assert refused.value.field == f"annotation {key}"
    assert reason in refused.value.reason


def test_keys_and_values_are_shown_printable() -> None:
    with pytest.raises(InvalidPlan) as refused:
        said({"headgate.io/exclude-\x1b[2J" + "a" * 500: "\x07" * 500})
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sidecar.istio.io/interceptionMode", "REDIRECT"),
        ("sidecar.istio.io/inject", "false"),
        (L + "proxy-uid", "2102"),
        (L + "close-wait-timeout", "3600s"),
        (K + "iptables-logs", "true"),
    ],
)
def test_what_steers_nothing_here_is_noted_with_its_reason(key: str, value: str) -> None:
    found = steering_of(((key, value),), DEFAULTS)
    reason = next(aside.reason for aside in ASIDES if aside.name == key)
    assert found == Wishes(DEFAULTS, (), (Noted(key, value, reason),))


def test_what_decided_a_field_is_known_by_name() -> None:
    found = steering_of(((H + "exclude-outbound-ports", "1"),), replace(DEFAULTS, udp=UdpPolicy.DENY))
    assert found.named("exclude_outbound_ports") == f"annotation {H}exclude-outbound-ports"
    assert (found.named("udp"), found.named("proxy_mark")) == ("udp", "proxy_mark")


# ── The table and its page ─────────────────────────────────────────────────────────────────────────────────────────
def test_the_page_names_every_key_and_no_other() -> None:
    page = DOCS.read_text()
    written = set(re.findall(r"^\|.*?`([a-z.]+\.io/[A-Za-z-]+)`", page, re.MULTILINE))
    assert written == KNOWN


def test_the_page_shows_each_family_with_its_keys_in_order_and_its_meaning() -> None:
    page = DOCS.read_text()
    for family in FAMILIES:
        assert f"### {family.name}\n\n{family.meaning[0].upper()}{family.meaning[1:]}." in page
        section = page.split(f"### {family.name}\n", 1)[1].split("\n##", 1)[0]
        assert re.findall(r"^\| `([^`]+)` \| (\w+)", section, re.MULTILINE) == [
            (key.name, key.mesh.value) for key in family.keys
        ]


def test_the_page_says_of_each_other_key_why() -> None:
    page = DOCS.read_text()
    for aside in ASIDES:
        assert re.search(rf"^\| `{re.escape(aside.name)}` \|.*{re.escape(aside.reason)}", page, re.MULTILINE)


def test_precedence_is_the_order_within_each_family() -> None:
    order = list(Mesh)
    for family in FAMILIES:
        places = [order.index(key.mesh) for key in family.keys]
        assert places == sorted(places)
