"""What is remembered of a destination, and what a new policy generation renews."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from proxy.datapath.destinations import (
    MAX_CLIENTS_REMEMBERED,
    MAX_REMEMBERED,
    Destination,
    destination_of,
    forget_unused,
)
from proxy.datapath.pod import Pod
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.routing import (
    DEFAULT_RETRY,
    Backend,
    Endpoint,
    HttpRule,
    InboundPort,
    Protocol,
    ServiceName,
    ServicePort,
    WeightedBackend,
)
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import NOBODY, Workload
from tests.unit.proxy_datapath.doubles import NO_POLICY, served_pod

VIP = SocketAddress("10.96.0.1", 80)
WEB = ServiceName("default", "web", "web.default.svc.cluster.local")


@pytest.fixture
def pod() -> Iterator[Pod]:
    with served_pod() as made:
        yield made


GENERATIONS = count(2)


def policy(*hosts: str, protocol: Protocol = Protocol.HTTP) -> PolicySnapshot:
    endpoints = tuple(Endpoint(SocketAddress(host, 8080), NOBODY) for host in hosts)
    backend = Backend(WEB, 80, "", endpoints)
    rule = HttpRule("default", (WeightedBackend(1, backend),), DEFAULT_RETRY)
    return replace(
        NO_POLICY, generation=next(GENERATIONS), services={VIP: ServicePort(WEB, 80, protocol, backend, (rule,))}
    )


def outbound(pod: Pod, snapshot: PolicySnapshot) -> Destination:
    return destination_of(pod, Direction.OUTBOUND, VIP, snapshot)


def test_a_destination_is_looked_up_once_for_each_generation(pod: Pod) -> None:
    first = policy("10.77.0.3")
    made = outbound(pod, first)
    assert outbound(pod, first) is made
    assert outbound(pod, replace(first, generation=next(GENERATIONS))) is made, "nothing of it has changed"
    assert outbound(pod, policy("10.77.0.4")) is not made


def test_upstreams_of_endpoints_that_stay_are_kept_and_the_others_retired(pod: Pod) -> None:
    before = outbound(pod, policy("10.77.0.3", "10.77.0.4")).opaque
    goes, stays = before.at(0), before.at(1)
    after = outbound(pod, policy("10.77.0.4", "10.77.0.5")).opaque
    assert after.at(0) is stays
    assert goes.retired and not stays.retired


def test_a_split_goes_on_where_it_was_only_while_its_policy_stays(pod: Pod) -> None:
    first = policy("10.77.0.3")
    made = outbound(pod, first)
    point = made.rules[0].point
    assert outbound(pod, replace(first, generation=next(GENERATIONS))).rules[0].point == point


@pytest.mark.parametrize(("port", "protocol"), [(80, Protocol.UNDECLARED), (5432, Protocol.TCP), (3306, Protocol.TCP)])
def test_what_nobody_declares_is_tcp_on_the_default_opaque_ports(pod: Pod, port: int, protocol: Protocol) -> None:
    place = SocketAddress("10.77.0.9", port)
    for direction in Direction:
        assert destination_of(pod, direction, place, NO_POLICY).protocol is protocol


def test_a_declared_protocol_wins_over_the_port_number(pod: Pod) -> None:
    place = SocketAddress("10.77.0.2", 5432)
    declared = replace(NO_POLICY, generation=2, inbound={place: InboundPort(WEB, Protocol.HTTP)})
    assert destination_of(pod, Direction.INBOUND, place, declared).protocol is Protocol.HTTP


def test_an_unknown_destination_leads_to_itself(pod: Pod) -> None:
    place = SocketAddress("192.0.2.7", 80)
    made = destination_of(pod, Direction.OUTBOUND, place, NO_POLICY)
    assert [endpoint.address for endpoint in made.opaque.endpoints] == [place]
    assert made.opaque.at(0).address == place
    assert made.rules[0].pools[0] is made.opaque


# ── Inbound: one upstream for each client ───────────────────────────────────────────────────────────────────────────


def inbound(pod: Pod, snapshot: PolicySnapshot = NO_POLICY) -> Destination:
    pod.node.policy = snapshot
    return destination_of(pod, Direction.INBOUND, SocketAddress("10.77.0.2", 8080), snapshot)


def test_each_client_is_spoken_for_by_its_own_address(pod: Pod) -> None:
    made = inbound(pod)
    one, other = made.inbound_upstream("10.77.0.3"), made.inbound_upstream("fd77::3")
    assert (one.source, other.source) == ("10.77.0.3", "fd77::3")
    assert made.inbound_upstream("10.77.0.3") is one
    assert made.inbound_upstream("10.77.0.2").source is None, "the pod itself needs no transparent socket"


def test_an_address_that_changes_hands_is_another_client(pod: Pod) -> None:
    before = inbound(pod).inbound_upstream("10.77.0.3")
    newcomer = Workload("default", "new", "new", "default", "new", "v1", "new", "v1", (), ("10.77.0.3",))
    after = inbound(pod, replace(NO_POLICY, generation=2, workloads={"10.77.0.3": newcomer})).inbound_upstream(
        "10.77.0.3"
    )
    assert after is not before
    assert before.retired
    assert after.peer is newcomer


def test_clients_are_forgotten_when_there_are_many_but_never_a_busy_one(pod: Pod) -> None:
    made = inbound(pod)
    busy = made.inbound_upstream("10.0.0.1")
    busy.active = 1
    for number in range(MAX_CLIENTS_REMEMBERED + 10):
        made.inbound_upstream(f"10.1.{number // 256}.{number % 256}")
    assert len(made.clients) <= MAX_CLIENTS_REMEMBERED
    assert made.inbound_upstream("10.0.0.1") is busy


# ── Many destinations ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crawlers_destinations_are_forgotten_unless_something_uses_them(pod: Pod) -> None:
    used = destination_of(pod, Direction.OUTBOUND, SocketAddress("198.51.100.1", 443), NO_POLICY)
    used.opaque.at(0).active = 1
    for number in range(MAX_REMEMBERED):
        destination_of(pod, Direction.OUTBOUND, SocketAddress("198.51.100.2", 1 + number), NO_POLICY)
    forget_unused(pod)
    assert list(pod.destinations.values()) == [used]


def test_as_many_destinations_as_are_remembered_stay(pod: Pod) -> None:
    for number in range(MAX_REMEMBERED):
        destination_of(pod, Direction.OUTBOUND, SocketAddress("198.51.100.2", 1 + number), NO_POLICY)
    forget_unused(pod)
    assert len(pod.destinations) == MAX_REMEMBERED
