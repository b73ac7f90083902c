"""The peers' usual command lines, word for word of their templates, and what the pod's connections do then."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.netns.cases.wire import (
    APPLICATION_UID,
    Endpoint,
    Family,
    accept,
    assert_talk,
    dial,
    dial_as,
    is_untouched,
    listen,
    original_destination,
    own,
    peer,
)
from tests.netns.init.conftest import Pod, assert_straight
from tests.unit.agent.init import test_istio, test_kuma, test_linkerd

APPLICATION_PORT = 8080
PASSTHROUGH = {4: "127.0.0.6", 6: "::6"}


@dataclass(frozen=True, slots=True)
class Template:
    """`excluded_*` are ports that the words exclude; `recaptured`: what the proxy sends to its own pod is inbound."""

    words: tuple[str, ...]
    proxy_uid: int
    outbound: int
    inbound: int
    excluded_outbound: int
    excluded_inbound: int
    recaptured: bool

    def __str__(self) -> str:
        return self.words[0]


TEMPLATES = (
    Template(("istio", *test_istio.TEMPLATE, "--dual-stack", "-o", "5432"), 1337, 15001, 15006, 5432, 15090, True),
    Template(
        ("linkerd", *(word for word in test_linkerd.TEMPLATE.split() if word != "--ipv6=false")),
        *(2102, 4140, 4143, 6443, 4567),
        recaptured=False,
    ),
    Template(
        ("kuma", *test_kuma.TEMPLATE.split(), "--exclude-outbound-ports=5432", "--exclude-inbound-ports=9901"),
        *(5678, 15001, 15006, 5432, 9901),
        recaptured=True,
    ),
)


@pytest.fixture(scope="module", params=TEMPLATES, ids=str)
def template(request: pytest.FixtureRequest, place: Pod) -> Iterator[Template]:
    chosen: Template = request.param
    with place.steered(*chosen.words) as done:
        assert done.stdout.startswith("installed: ")
        yield chosen


def test_what_the_application_sends_meets_the_proxy(place: Pod, template: Template, family: Family) -> None:
    """B1."""
    target = (family.of(place.peer), 80)
    with (
        listen(place.pod.netns, family.any, template.outbound) as proxy,
        dial_as(APPLICATION_UID, place.pod.netns, *target) as client,
        accept(proxy) as met,
    ):
        assert original_destination(met) == target
        assert peer(met) == own(client)
        assert_talk(client, met)


def test_what_reaches_the_pod_meets_the_proxy(place: Pod, template: Template, family: Family) -> None:
    """B20."""
    target = (family.of(place.pod), APPLICATION_PORT)
    with (
        listen(place.pod.netns, family.any, template.inbound) as proxy,
        dial(place.peer.netns, *target) as client,
        accept(proxy) as met,
    ):
        assert original_destination(met) == target
        assert peer(met) == own(client)
        assert_talk(client, met)


def test_the_proxys_own_connections_leave_as_they_are(place: Pod, template: Template, family: Family) -> None:
    """B2."""
    target = (family.of(place.peer), 80)
    with (
        listen(place.peer.netns, *target) as server,
        dial_as(template.proxy_uid, place.pod.netns, *target) as upstream,
        accept(server) as served,
    ):
        assert_straight(upstream, served)


def test_excluded_ports_are_direct_both_ways(place: Pod, template: Template, family: Family) -> None:
    """B10, B25."""
    there, here = family.of(place.peer), family.of(place.pod)
    with (
        listen(place.peer.netns, there, template.excluded_outbound) as server,
        dial_as(APPLICATION_UID, place.pod.netns, there, template.excluded_outbound) as client,
        accept(server) as served,
    ):
        assert_straight(client, served)
    with (
        listen(place.pod.netns, family.any, template.excluded_inbound) as application,
        dial(place.peer.netns, here, template.excluded_inbound) as client,
        accept(application) as served,
    ):
        assert_straight(client, served)


def test_loopback_and_the_pods_own_address_are_direct(place: Pod, template: Template, family: Family) -> None:
    """B3, B5."""
    for address in (family.loopback, family.of(place.pod)):
        with (
            listen(place.pod.netns, family.any, APPLICATION_PORT) as application,
            dial_as(APPLICATION_UID, place.pod.netns, address, APPLICATION_PORT) as client,
            accept(application) as served,
        ):
            assert_straight(client, served)


def test_the_proxys_calls_to_its_own_pod_are_inbound_where_the_mesh_has_it_so(
    place: Pod, template: Template, family: Family
) -> None:
    """B6; Linkerd's proxy calls its application so, and must never meet itself."""
    target = (family.of(place.pod), APPLICATION_PORT)
    with (
        listen(place.pod.netns, family.any, template.inbound) as proxy,
        listen(place.pod.netns, family.any, APPLICATION_PORT) as application,
        dial_as(template.proxy_uid, place.pod.netns, *target) as client,
        accept(proxy if template.recaptured else application) as met,
    ):
        assert_talk(client, met)
        assert is_untouched(application if template.recaptured else proxy)
        if template.recaptured:
            assert original_destination(met) == target


def test_the_proxy_passes_inbound_on_from_its_own_address(place: Pod, template: Template, family: Family) -> None:
    """B24: what istio-proxy and kuma-dp bind."""
    if not template.recaptured:
        assert PASSTHROUGH[6] not in place.pod.run(["ip", "-6", "-o", "addr", "show", "dev", "lo"]).stdout.split()
        return
    target: Endpoint = (family.of(place.pod), APPLICATION_PORT)
    with (
        listen(place.pod.netns, family.any, APPLICATION_PORT) as application,
        dial_as(template.proxy_uid, place.pod.netns, *target, source=PASSTHROUGH[family.version]) as upstream,
        accept(application) as served,
    ):
        assert peer(served)[0] == PASSTHROUGH[family.version]
        assert_talk(upstream, served)
