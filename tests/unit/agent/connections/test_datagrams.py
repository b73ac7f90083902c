"""UDP: what conntrack has of it, with its translation, and sockets that it does not know."""

from ipaddress import ip_address

import pytest

from agent.connections.datagrams import join_udp
from agent.connections.values import Connection, Path, Process, Reason, Way
from agent.kernel.socket_table import HeldSocket
from tests.unit.agent.connections.described import POD, Pod, commands, ends, key, place

UDP = 17
QUERY = f"{POD}:4000 > 10.96.0.53:53"


@pytest.fixture
def pod() -> Pod:
    made = Pod(owners={1: Process(11, "app"), 2: Process(12, "coredns")})
    made.udp = [HeldSocket(*place(f"{POD}:4000"), None, 0, "bound", 1000, 1)]
    return made


def udp(pod: Pod) -> list[Connection]:
    return join_udp(pod.sources())


def test_a_captured_query_names_its_listener_and_the_process(pod: Pod) -> None:
    pod.udp.append(HeldSocket(*place("0.0.0.0:15053"), None, 0, "bound", 0, 2))
    pod.flow(QUERY, f"127.0.0.1:15053 > {POD}:4000", protocol=UDP)
    (one,) = udp(pod)
    assert (one.protocol, one.way, one.path, one.listener) == ("udp", Way.OUTBOUND, Path.REDIRECT, 15053)
    assert ends(one) == QUERY and commands(one) == ("app", None)
    assert one.reason is None and one.state == "answered"


def test_a_query_that_is_translated_elsewhere_goes_direct_and_names_where(pod: Pod) -> None:
    pod.flow(QUERY, f"10.0.0.53:53 > {POD}:4000", protocol=UDP)
    (one,) = udp(pod)
    assert (one.path, one.reason) == (Path.DIRECT, Reason.UDP)
    assert one.upstream == (ip_address("10.0.0.53"), 53)


def test_what_arrives_names_who_is_bound_there_also_to_any_address(pod: Pod) -> None:
    pod.udp.append(HeldSocket(*place("0.0.0.0:53"), None, 0, "bound", 0, 2))
    pod.flow(f"10.0.0.7:999 > {POD}:53", protocol=UDP)
    (one,) = udp(pod)
    assert one.way is Way.INBOUND and commands(one) == (None, "coredns")


def test_over_loopback_both_ends_are_named(pod: Pod) -> None:
    pod.udp.append(HeldSocket(*place("127.0.0.1:53"), None, 0, "bound", 0, 2))
    pod.udp.append(HeldSocket(*place("127.0.0.1:777"), None, 0, "bound", 0, 1))
    pod.flow("127.0.0.1:777 > 127.0.0.1:53", protocol=UDP)
    (one,) = udp(pod)
    assert one.way is Way.LOCAL and commands(one) == ("app", "coredns")


def test_a_connected_socket_that_conntrack_does_not_know_is_told(pod: Pod) -> None:
    pod.udp = [HeldSocket(*key(QUERY), "connected", 1000, 1)]
    (one,) = udp(pod)
    assert (ends(one), one.state, commands(one)) == (QUERY, "connected", ("app", None))
    pod.flow(QUERY, protocol=UDP)
    assert [one.state for one in udp(pod)] == ["answered"], "once"


def test_tcp_is_no_business_of_it(pod: Pod) -> None:
    pod.flow(QUERY)
    assert udp(pod) == []
