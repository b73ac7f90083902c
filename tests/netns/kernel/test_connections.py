"""What sock_diag and conntrack say of a namespace's TCP connections."""

import os
import socket
from ipaddress import ip_address

import pytest

from agent.kernel import conntrack, nft, sock_diag
from agent.kernel.socket_owners import owner_of
from agent.plan import FlowTuple
from tests.netns.kernel.rules import STEER
from tests.netns.kernel.scratch import NODE4, NODE6, POD4, POD6, Scratch, pod_and_node

ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


def listening(where: Scratch, port: int, family: int = socket.AF_INET6, mark: int = 0) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.bind((ANY[socket.AddressFamily(family)], port))
        sock.listen()
        return sock

    return where.run(make)


def connected(where: Scratch, address: str, port: int, family: int | None = None) -> socket.socket:
    def make() -> socket.socket:
        plain = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(plain if family is None else family)
        sock.settimeout(5)
        sock.connect((address, port))
        return sock

    return where.run(make)


def as_entry(sock: socket.socket) -> conntrack.Tuple:
    (source, source_port), (destination, port) = sock.getsockname()[:2], sock.getpeername()[:2]
    return conntrack.Tuple(ip_address(source), source_port, ip_address(destination), port)


def test_established_connections_of_both_families_as_the_pod_sees_them() -> None:
    with pod_and_node() as (pod, node), listening(node, 8080):
        flows = [connected(pod, NODE4, 8080), connected(pod, NODE6, 8080)]
        four, six = (flow.getsockname()[1] for flow in flows)
        assert {flow.key for flow in pod.run(sock_diag.established)} == {
            (ip_address(POD4), four, ip_address(NODE4), 8080),
            (ip_address(POD6), six, ip_address(NODE6), 8080),
        }
        for flow in flows:
            flow.close()


def test_beside_the_proxys_listeners_one_connection_is_seen_and_none_is_none() -> None:
    """Where nothing but those listeners is in use the machine's table is not walked through."""
    with pod_and_node() as (pod, node), listening(node, 8080), listening(pod, 15001), listening(pod, 15006):
        assert pod.run(sock_diag.established) == ()
        with connected(node, POD4, 15006):
            assert [flow.local_port for flow in pod.run(sock_diag.established)] == [15006]
        connected(pod, NODE4, 8080).close()
        # Nobody's any more, and not over: the node's listener has not closed its end.
        assert 8080 in {flow.remote_port for flow in pod.run(sock_diag.established)}


def test_b58_v4_mapped_connection_is_ipv4() -> None:
    with pod_and_node() as (pod, node), listening(node, 8080):
        sock = connected(pod, f"::ffff:{NODE4}", 8080, socket.AF_INET6)
        with sock:
            (flow,) = pod.run(sock_diag.established)
            assert flow == FlowTuple(ip_address(POD4), sock.getsockname()[1], ip_address(NODE4), 8080, 0, 0)


def test_connection_that_waits_for_its_answer_counts() -> None:
    def dial() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.connect_ex(("10.99.0.77", 80))  # nobody there: SYN_SENT until resolution fails
        return sock

    with pod_and_node() as (pod, _), pod.run(dial):
        assert [flow.remote_port for flow in pod.run(sock_diag.established)] == [80]


def test_connection_in_time_wait_does_not_count() -> None:
    with pod_and_node() as (pod, node), listening(node, 8080) as server:
        client = connected(pod, NODE4, 8080)
        accepted, _ = server.accept()
        client.close()  # closes first, so it is the one that waits
        assert accepted.recv(1) == b""
        accepted.close()
        assert pod.shell("ss", "-Htn", "state", "time-wait").count(":8080") == 1
        assert pod.run(sock_diag.established) == ()


def test_b31_listener_is_told_with_port_mark_and_owner() -> None:
    with pod_and_node() as (pod, _), listening(pod, 15001, mark=0x539), listening(pod, 15006, socket.AF_INET):
        found = {listener.port: listener for listener in pod.run(sock_diag.listeners)}
        assert set(found) == {15001, 15006}
        assert (found[15001].mark, found[15006].mark) == (0x539, 0)
        assert found[15006].address == ip_address("0.0.0.0")
        owner = owner_of(found[15001])
        assert owner is not None and owner.pid == os.getpid()


def test_many_connections_are_read_in_several_pieces() -> None:
    with pod_and_node() as (pod, node), listening(node, 8080) as server:
        server.listen(1000)
        clients = [connected(pod, NODE4, 8080) for _ in range(400)]
        ports = {client.getsockname()[1] for client in clients}
        assert {flow.local_port for flow in pod.run(sock_diag.established)} == ports
        for client in clients:
            client.close()


def test_steered_connections_are_counted_until_they_end() -> None:
    with pod_and_node() as (pod, node), listening(pod, 15001), listening(pod, 15006):
        pod.run(nft.apply, STEER)
        assert pod.run(conntrack.count_steered) == 0
        flows = [connected(where, to, 80) for where, to in [(pod, NODE4), (pod, NODE6), (node, POD4), (node, POD6)]]
        assert pod.run(conntrack.count_steered) == 4
        assert pod.run(conntrack.count_steered, frozenset({15006})) == 2
        for flow in flows:
            # A reset ends both sides at once; a plain close would leave the half of the proxy that is not here.
            flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            flow.close()
        assert pod.run(conntrack.count_steered) == 0


def test_entry_of_a_flow_says_where_it_was_redirected() -> None:
    with pod_and_node() as (pod, node), listening(pod, 15001), listening(pod, 15006), listening(pod, 8080):
        pod.run(nft.apply, STEER)
        for where, to, port in [(pod, NODE4, 15001), (pod, NODE6, 15001), (node, POD4, 15006), (node, POD6, 15006)]:
            with connected(where, to, 80) as sock:
                entry = pod.run(conntrack.find, as_entry(sock))
                assert entry is not None and entry.steered_to == port and entry.alive
        with connected(pod, POD4, 8080) as own:
            entry = pod.run(conntrack.find, as_entry(own))
            assert entry is not None and entry.steered_to is None
        nobody = conntrack.Tuple(ip_address(POD4), 1, ip_address(NODE4), 2)
        assert pod.run(conntrack.find, nobody) is None


@pytest.mark.parametrize(("to", "own"), [(NODE4, POD4), (NODE6, POD6), (f"::ffff:{NODE4}", POD4)])
def test_connection_is_ended_at_both_ends(to: str, own: str) -> None:
    with pod_and_node() as (pod, node), listening(node, 8080) as server:
        family = socket.AF_INET6 if ":" in to else None
        with connected(pod, to, 8080, family) as sock, server.accept()[0] as accepted:
            plain = ip_address(to.removeprefix("::ffff:"))
            flow = (ip_address(own), sock.getsockname()[1], plain, 8080)
            assert pod.run(sock_diag.destroy, [flow]) == frozenset()
            with pytest.raises(ConnectionAbortedError):
                sock.recv(1)
            accepted.settimeout(5)
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)
            assert pod.run(sock_diag.destroy, [flow]) == frozenset(), "one that has ended is no failure"


def test_many_connections_are_ended_at_once() -> None:
    with pod_and_node() as (pod, node), listening(node, 8080) as server:
        server.listen(1000)
        clients = [connected(pod, NODE4, 8080) for _ in range(350)]
        flows = [flow.key for flow in pod.run(sock_diag.established)]
        assert len(flows) == 350
        assert pod.run(sock_diag.destroy, flows) == frozenset()
        assert pod.run(sock_diag.established) == ()
        for client in clients:
            client.close()


def test_entry_that_is_forgotten_is_new_to_conntrack_again() -> None:
    with pod_and_node() as (pod, node), listening(pod, 15001), listening(pod, 15006):
        pod.run(nft.apply, STEER)
        with connected(pod, NODE4, 80) as sock, connected(pod, NODE6, 80) as sock6, connected(node, POD4, 80):
            originals = [as_entry(sock), as_entry(sock6)]
            assert len(pod.run(conntrack.steered)) == 3
            pod.run(conntrack.forget, originals)
            assert pod.run(conntrack.find, originals[0]) is pod.run(conntrack.find, originals[1]) is None
            assert len(pod.run(conntrack.steered)) == 1
            pod.run(conntrack.forget, originals * 200)  # gone already: no failure, and more than one send


def test_room_in_the_table_is_told_of_this_namespace() -> None:
    with pod_and_node() as (pod, _), listening(pod, 15001):
        pod.run(nft.apply, STEER)
        assert pod.run(conntrack.table).entries == 0
        with connected(pod, NODE4, 80):
            table = pod.run(conntrack.table)
        assert table.entries == 1 and table.limit > 1000 and not table.is_full and table.dropped is None
