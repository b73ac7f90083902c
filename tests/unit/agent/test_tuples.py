"""Which connections lie outside the mesh: what goes into the grandfathered sets, and what must never get there."""

from ipaddress import ip_address

import pytest

from agent.plan import FlowKey, FlowTuple, opened_meanwhile, outside_the_mesh

STEERED = frozenset({15001, 15006})


def flow(local: str, local_port: int, remote: str, remote_port: int, mark: int | None = 0) -> FlowTuple:
    return FlowTuple(ip_address(local), local_port, ip_address(remote), remote_port, mark)


def key(one: FlowTuple) -> FlowKey:
    return one.key


FAMILIES = pytest.mark.parametrize(
    ("pod", "peer", "loopback"), [("10.0.0.5", "10.0.0.9", "127.0.0.1"), ("fd00::5", "fd00::9", "::1")]
)


@FAMILIES
def test_connections_from_and_to_the_application_are_outside(pod: str, peer: str, loopback: str) -> None:
    out, incoming = flow(pod, 40000, peer, 80), flow(pod, 8080, peer, 50000)
    assert outside_the_mesh([out, incoming], STEERED) == {key(out), key(incoming)}


@FAMILIES
def test_the_applications_end_of_a_steered_connection_is_not(pod: str, peer: str, loopback: str) -> None:
    application, proxy = flow(pod, 40000, peer, 80), flow(loopback, 15001, pod, 40000, 0x539)
    assert outside_the_mesh([application, proxy], STEERED) == frozenset()


@FAMILIES
def test_b38_what_conntrack_gave_another_port_is_known_by_its_other_end(pod: str, peer: str, loopback: str) -> None:
    application, proxy = flow(pod, 40000, peer, 80), flow(loopback, 15001, pod, 40001, 0x539)
    assert outside_the_mesh([application, proxy], STEERED) == {key(application)}
    ends = {key(application): key(proxy), key(proxy): key(application)}
    assert outside_the_mesh([application, proxy], STEERED, ends) == frozenset()
    assert opened_meanwhile(frozenset(), [application], [application, proxy], STEERED, ends) == frozenset()


@FAMILIES
def test_translated_to_elsewhere_is_outside_all_the_same(pod: str, peer: str, loopback: str) -> None:
    one, elsewhere = flow(pod, 40000, peer, 80), flow("10.9.9.9", 8080, pod, 40000)
    assert outside_the_mesh([one], STEERED, {key(one): key(elsewhere)}) == {key(one)}


@FAMILIES
def test_a_steered_inbound_connection_and_its_transparent_upstream_are_not(pod: str, peer: str, loopback: str) -> None:
    downstream = flow(pod, 15006, peer, 50000, 0x539)
    upstream, application = flow(peer, 33000, pod, 8080, 0x539), flow(pod, 8080, peer, 33000)
    assert outside_the_mesh([downstream, upstream, application], STEERED) == frozenset()


@FAMILIES
def test_the_proxys_own_upstreams_are_not(pod: str, peer: str, loopback: str) -> None:
    assert outside_the_mesh([flow(pod, 41000, peer, 80, 0x539)], STEERED) == frozenset()
    assert outside_the_mesh([flow(pod, 41000, peer, 80, 0xABC00539)], STEERED) == frozenset()


@FAMILIES
def test_connections_within_the_pod_need_no_exemption(pod: str, peer: str, loopback: str) -> None:
    one = [flow(loopback, 40000, loopback, 8080), flow(loopback, 8080, loopback, 40000)]
    assert outside_the_mesh(one, STEERED) == frozenset()


def test_a_socket_whose_mark_is_unknown_counts_as_the_applications() -> None:
    one = flow("10.0.0.5", 40000, "10.0.0.9", 80, None)
    assert outside_the_mesh([one], STEERED) == {one.key}


def test_a_mark_of_another_cni_is_not_the_proxys() -> None:
    one = flow("10.0.0.5", 40000, "10.0.0.9", 80, 0x1000)
    assert outside_the_mesh([one], STEERED) == {one.key}


def test_what_opened_in_the_gap_is_added_and_what_was_known_is_not() -> None:
    old, late = flow("10.0.0.5", 40000, "10.0.0.9", 80), flow("10.0.0.5", 40001, "10.0.0.9", 80)
    now = [old, late]
    assert opened_meanwhile(frozenset({old.key}), now, now, STEERED) == {late.key}
    assert opened_meanwhile(frozenset({old.key}), [old], [old], STEERED) == frozenset()


def test_a_captured_connection_whose_other_end_the_first_reading_missed_is_not_added() -> None:
    application = flow("10.0.0.5", 40001, "10.0.0.9", 80)
    proxy = flow("127.0.0.1", 15001, "10.0.0.5", 40001, 0x539)
    assert opened_meanwhile(frozenset(), [application], [application, proxy], STEERED) == frozenset()


def test_one_that_ended_between_the_readings_is_not_added() -> None:
    assert opened_meanwhile(frozenset(), [flow("10.0.0.5", 40001, "10.0.0.9", 80)], [], STEERED) == frozenset()
