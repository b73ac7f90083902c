"""A worker tells what lives in it: both ends of both halves as the kernel knows them, in slices, and never for ever."""

from proxy.datapath.walk import A_TURN
from proxy.model.address import SocketAddress
from proxy.model.living import LivingConnection
from proxy.model.routing import Protocol
from proxy.workerlink import ConnectionsTold, LivingConnections, ReleasePod, ReportConnections
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import Server, Wire, get, ok

CLIENT = "client"


def told(mesh: Mesh, *, most: int = 10_000, **of: object) -> tuple[list[LivingConnection], int]:
    """What the worker answers, and how much it left out."""
    mesh.tell(ReportConnections(7, most, **of))  # type: ignore[arg-type]
    end = mesh.expect(ConnectionsTold)
    assert end.request_id == 7
    slices = [message for message in mesh._received if isinstance(message, LivingConnections)]
    mesh._received = [message for message in mesh._received if not isinstance(message, LivingConnections)]
    assert all(len(one.connections) <= A_TURN for one in slices)
    return [connection for one in slices for connection in one.connections], end.left_out


def busy(mesh: Mesh, server: Server) -> tuple[Wire, Wire]:
    """A request under way."""
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    return client, upstream


def name(wire: Wire) -> SocketAddress:
    return SocketAddress(*wire.sock.getsockname()[:2])


def peer(wire: Wire) -> SocketAddress:
    return SocketAddress(*wire.sock.getpeername()[:2])


def test_a_request_under_way_is_told_with_both_its_sockets(mesh: Mesh) -> None:
    server = mesh.listen()
    client, upstream = busy(mesh, server)
    (one,), left_out = told(mesh)
    assert left_out == 0
    assert (one.pod, one.netns_cookie) == (CLIENT, mesh.netns_cookie(CLIENT))
    assert (one.direction, one.protocol) == ("outbound", "http")
    assert one.client == name(client) and one.listener == SocketAddress("127.0.0.1", 15001)
    assert one.original == peer(client)
    assert one.upstream == name(upstream) and one.upstream_from == peer(upstream)
    assert one.service.endswith(".svc.cluster.local") and one.route and one.workload == "default/server"
    assert 0 <= one.age_s < 5


def test_between_two_requests_the_client_leads_nowhere_and_the_server_is_kept_idle(mesh: Mesh) -> None:
    server = mesh.listen()
    client, upstream = busy(mesh, server)
    upstream.send(ok())
    client.answer()
    connections, _ = told(mesh)
    by_protocol = {one.protocol: one for one in connections}
    assert by_protocol.keys() == {"http", "idle"}
    waiting, idle = by_protocol["http"], by_protocol["idle"]
    assert (waiting.upstream, waiting.upstream_from, waiting.route) == (None, None, "")
    assert (idle.client, idle.listener) == (None, None)
    assert idle.upstream == name(upstream) and idle.upstream_from == peer(upstream)


def test_a_relay_and_one_that_has_said_nothing_yet(mesh: Mesh) -> None:
    server = mesh.listen()
    relayed = mesh.connect(mesh.service([server], Protocol.TCP))
    relayed.send(b"x")
    upstream = server.accept()
    assert upstream.read(1) == b"x"
    silent = mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    mesh.turn()
    by_client = {one.client: one for one in told(mesh)[0]}
    assert by_client[name(relayed)].protocol == "tcp"
    assert by_client[name(relayed)].upstream_from == peer(upstream)
    assert by_client[name(silent)].protocol in ("detecting", "tcp")


def test_an_inbound_connection_names_the_address_that_called(mesh: Mesh) -> None:
    server = mesh.listen("guarded")
    mesh.inbound(server, Protocol.HTTP)
    client = mesh.connect(server, "server")
    client.send(get())
    upstream = server.accept()
    upstream.head()
    (one,), _ = told(mesh)
    assert (one.pod, one.direction) == ("guarded", "inbound")
    assert one.client == name(client) and one.original == SocketAddress(server.host, server.port)
    assert one.listener == SocketAddress(server.host, 15006)
    assert one.upstream_from == peer(upstream) and one.upstream_from.host == name(client).host
    assert one.service == "inside.default.svc.cluster.local"


def test_a_service_that_nobody_declared_has_istios_name(mesh: Mesh) -> None:
    server = mesh.listen()
    client = mesh.connect(server)
    client.send(get())
    server.accept().head()
    assert [one.service for one in told(mesh)[0]] == ["PassthroughCluster"]


def test_many_come_in_slices_and_beyond_what_was_asked_for_they_are_counted(mesh: Mesh) -> None:
    server = mesh.listen(backlog=512)
    to = mesh.service([server], Protocol.UNDECLARED)
    clients = {name(mesh.connect(to)) for _ in range(3 * A_TURN + 5)}
    mesh.until(lambda: len(told(mesh)[0]) == len(clients), "all to be accepted")
    connections, left_out = told(mesh)
    # By number: of ports that come again quickly conntrack shows the proxy others (B38).
    assert len({one.client for one in connections}) == len(connections) == len(clients), "each once"
    assert left_out == 0
    connections, left_out = told(mesh, most=40)
    assert (len(connections), left_out) == (40, len(clients) - 40)


def test_only_the_pod_that_is_asked_for(mesh: Mesh) -> None:
    busy(mesh, mesh.listen())
    assert told(mesh, uid="guarded") == ([], 0)
    assert len(told(mesh, uid=CLIENT)[0]) == 1
    assert told(mesh, netns_cookie=mesh.netns_cookie("guarded")) == ([], 0)
    assert len(told(mesh, netns_cookie=mesh.netns_cookie(CLIENT))[0]) == 1


def test_what_a_released_pod_still_has_is_told(mesh: Mesh) -> None:
    client, _ = busy(mesh, mesh.listen())
    mesh.tell(ReleasePod(CLIENT))
    assert [one.client for one in told(mesh)[0]] == [name(client)]


def test_a_second_question_takes_the_place_of_the_first(mesh: Mesh) -> None:
    server = mesh.listen(backlog=512)
    to = mesh.service([server], Protocol.UNDECLARED)
    for _ in range(2 * A_TURN):
        mesh.connect(to)
    mesh.until(lambda: len(told(mesh)[0]) == 2 * A_TURN, "all to be accepted")
    mesh.pause_worker()
    mesh.tell(ReportConnections(1, 10_000))
    mesh.tell(ReportConnections(7, 10_000))
    mesh.resume_worker()
    assert mesh.expect(ConnectionsTold).request_id == 7
    ends = [message for message in mesh._received if isinstance(message, ConnectionsTold)]
    assert ends == [], "the first one was given up"
    told_of = [message.request_id for message in mesh._received if isinstance(message, LivingConnections)]
    assert told_of == [1, *([7] * (len(told_of) - 1))] and len(told_of) >= 3
    mesh._received.clear()


def test_what_ends_while_it_is_told_does_no_harm(mesh: Mesh) -> None:
    server = mesh.listen(backlog=512)
    to = mesh.service([server], Protocol.UNDECLARED)
    clients = [mesh.connect(to) for _ in range(4 * A_TURN)]
    mesh.until(lambda: len(told(mesh)[0]) == len(clients), "all to be accepted")
    mesh.pause_worker()
    mesh.tell(ReportConnections(7, 10_000))
    for client in clients:
        client.close()
    mesh.resume_worker()
    assert mesh.expect(ConnectionsTold).left_out == 0
    mesh.expect(LivingConnections)
    mesh.until(lambda: told(mesh) == ([], 0), "all to have ended")
