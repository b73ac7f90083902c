"""Connections to an enrolled pod: its application sees the client's own address and is reached on its own port."""

import pytest

from proxy.model.address import SocketAddress
from proxy.model.routing import Protocol
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import flag_of, get, ok

FAMILIES = pytest.mark.parametrize("family", [4, 6])


@FAMILIES
@pytest.mark.parametrize("caller", ["server", "client"], ids=["from outside the mesh", "two hops"])
def test_the_application_sees_the_clients_own_address(mesh: Mesh, family: int, caller: str) -> None:
    application = mesh.listen("guarded", family, 8080)
    client = mesh.connect(application, caller)
    client.send(get())
    inside = application.accept()
    assert inside.sock.getpeername()[0] == mesh.address(caller, family)
    assert inside.sock.getsockname()[:2] == (mesh.address("guarded", family), 8080)
    assert inside.head() == get()
    inside.send(ok(b"seen"))
    assert client.answer()[2] == b"seen"


@FAMILIES
def test_opaque_bytes_arrive_with_the_clients_address_too(mesh: Mesh, family: int) -> None:
    application = mesh.listen("guarded", family, 5432)
    client = mesh.connect(application, "server")
    inside = application.accept()
    assert inside.sock.getpeername()[0] == mesh.address("server", family)
    inside.send(b"R")
    assert client.read(1) == b"R"
    client.end()
    assert inside.rest() == b""
    inside.send(b"bye")
    inside.end()
    assert client.rest() == b"bye"


def test_a_service_on_port_80_reaches_the_application_on_its_port_8080_over_both_hops(mesh: Mesh) -> None:
    application = mesh.listen("guarded", port=8080)
    client = mesh.connect(mesh.service([application], port=80))
    mesh.telemetry()
    client.send(get())
    inside = application.accept()
    assert inside.sock.getpeername()[0] == mesh.address("client")
    assert inside.head() == get()
    inside.send(ok())
    assert client.answer()[0] == 200
    reporters = {counted.labels.reporter: counted.labels for counted in mesh.telemetry().requests}
    assert set(reporters) == {"source", "destination"}
    for labels in reporters.values():
        assert (labels.source_workload, labels.destination_workload) == ("client", "guarded")
        assert labels.response_code == "200"
    assert reporters["destination"].connection_security_policy == "none"


def test_no_connection_to_the_application_is_shared_between_clients(mesh: Mesh) -> None:
    application = mesh.listen("guarded")
    for caller in ("server", "client", "server"):
        client = mesh.connect(application, caller)
        client.send(get())
        if len(application.accepted) < 2:
            application.accept()
        inside = next(one for one in application.accepted if one.sock.getpeername()[0] == mesh.address(caller))
        assert inside.head() == get()
        inside.send(ok())
        assert client.answer()[0] == 200
        client.close()
    assert not application.has_caller(), "the second request of `server` used its first connection"


def test_an_application_that_does_not_listen_is_503_uf_without_a_retry(mesh: Mesh) -> None:
    place = mesh.closed_port("guarded")
    client = mesh.connect(place, "server")
    client.send(get())
    status, head, body = client.answer()
    assert (status, flag_of(head)) == (503, "UF")
    assert f"cannot connect to {place} of ".encode() in body and b"(tries: 1)" in body


def test_a_stranger_is_not_told_names_of_objects(mesh: Mesh) -> None:
    """The node's own address is no pod's."""
    place = mesh.closed_port("guarded")
    client = mesh.connect(place, "node")
    client.send(get())
    status, head, body = client.answer()
    assert (status, body) == (503, b"Service Unavailable\n")
    assert b"headgate-error" not in head


def test_what_a_port_declares_holds_inbound_as_well(mesh: Mesh) -> None:
    application = mesh.listen("guarded")
    mesh.inbound(application, Protocol.TCP)
    client = mesh.connect(application, "server")
    unsound = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(unsound)
    assert application.accept().read(len(unsound)) == unsound


def test_an_unsound_request_is_refused_inbound_as_well(mesh: Mesh) -> None:
    application = mesh.listen("guarded")
    client = mesh.connect(application, "server")
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.refused() == (400, "DPE")
    assert mesh.next_is(application, SocketAddress(application.host, application.port))


# ── Unknown destinations ────────────────────────────────────────────────────────────────────────────────────────────


@FAMILIES
def test_a_destination_that_no_service_owns_is_reached_as_it_was_called(mesh: Mesh, family: int) -> None:
    server = mesh.listen(family=family)
    client = mesh.connect(server)
    mesh.telemetry()
    client.send(get())
    upstream = server.accept()
    assert upstream.sock.getpeername()[0] == mesh.address("client", family)
    assert upstream.head() == get()
    upstream.send(ok())
    assert client.answer()[0] == 200
    (counted,) = mesh.telemetry().requests
    assert counted.labels.destination_service_name == "PassthroughCluster"
    assert counted.labels.destination_workload == "server"


@FAMILIES
def test_an_unknown_destination_that_refuses_is_answered_or_reset(mesh: Mesh, family: int) -> None:
    place = SocketAddress(mesh.address("server", family), mesh.closed_port().port)
    client = mesh.connect(place)
    client.send(get())
    status, head, _ = client.answer()
    assert (status, flag_of(head)) == (503, "UF,URX")
    opaque = mesh.connect(place)
    opaque.send(b"\x00\x01")
    assert opaque.is_reset()
