"""Splits, and policy that changes under living connections: new requests follow it, nothing is cut."""

import time
from collections.abc import Iterator

import pytest

from proxy.model.routing import Protocol
from proxy.policy.split import max_deviation
from tests.netns.proxy.described import Subset
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.serving import Answering
from tests.netns.proxy.wire import Server, Wire, get, ok, post


def ask(mesh: Mesh, client: Wire, times: int) -> list[bytes]:
    answers = []
    for _ in range(times):
        client.send(get())
        answers.append(client.answer()[2])
    return answers


@pytest.mark.parametrize(("one", "other"), [(90, 10), (50, 50), (1, 999), (7, 0)])
def test_requests_are_split_by_weight_within_the_golden_ratios_bound(mesh: Mesh, one: int, other: int) -> None:
    with Answering(mesh.listen(), b"v1") as first, Answering(mesh.listen(), b"v2") as second:
        subsets = [Subset([first.server], one), *([Subset([second.server], other)] if other else [])]
        client = mesh.connect(mesh.split(subsets))
        answers = ask(mesh, client, 1000)
    share = 1000 * one / (one + other)
    assert abs(answers.count(b"v1") - share) <= max_deviation(1000)
    assert answers.count(b"v1") + answers.count(b"v2") == 1000


def test_every_window_of_requests_has_its_share(mesh: Mesh) -> None:
    with Answering(mesh.listen(), b"v1") as first, Answering(mesh.listen(), b"v2") as second:
        client = mesh.connect(mesh.split([Subset([first.server], 90), Subset([second.server], 10)]))
        answers = ask(mesh, client, 500)
    for start in range(0, 500, 50):
        assert 2 <= answers[start : start + 50].count(b"v2") <= 8


def test_endpoints_of_a_backend_share_its_requests_by_load(mesh: Mesh) -> None:
    servers = [mesh.listen() for _ in range(2)]
    service = mesh.service(servers)
    clients = [mesh.connect(service) for _ in range(20)]
    for client in clients:
        client.send(get())
    mesh.until(lambda: sum(_accept_all(server) for server in servers) == 20, "twenty requests to arrive")
    # Of two endpoints always both are looked at, and the less loaded is taken.
    assert [len(server.accepted) for server in servers] == [10, 10]


def _accept_all(server: Server) -> int:
    while server.has_caller():
        server.accept()
    return len(server.accepted)


def test_a_living_connection_follows_new_policy_with_its_next_request(mesh: Mesh) -> None:
    old, new = mesh.listen(), mesh.listen()
    service = mesh.service([old])
    client = mesh.connect(service)
    client.send(get(b"/before"))
    before = old.accept()
    assert before.head() == get(b"/before")
    mesh.change(service, [Subset([new])])
    before.send(ok(b"from the old one"))
    assert client.answer()[2] == b"from the old one", "what is under way is not cut"
    client.send(get(b"/after"))
    after = new.accept()
    assert after.head() == get(b"/after")
    after.send(ok())
    assert client.answer()[0] == 200
    assert before.rest() == b"", "nothing is kept to an endpoint that is gone"


def test_a_tunnel_lives_on_when_its_endpoint_leaves_policy(mesh: Mesh) -> None:
    old, new = mesh.listen(), mesh.listen()
    service = mesh.service([old], Protocol.TCP)
    client = mesh.connect(service)
    client.send(b"a")
    upstream = old.accept()
    mesh.change(service, [Subset([new])], Protocol.TCP)
    client.send(b"b")
    assert upstream.read(2) == b"ab"
    other = mesh.connect(service)
    other.send(b"c")
    assert new.accept().read(1) == b"c"


def test_idle_connections_to_endpoints_that_stay_are_kept(mesh: Mesh) -> None:
    stays, comes = mesh.listen(), mesh.listen()
    service = mesh.service([stays])
    client = mesh.connect(service)
    client.send(get())
    upstream = stays.accept()
    upstream.head()
    upstream.send(ok())
    client.answer()
    mesh.change(service, [Subset([stays], 1000), Subset([comes], 1)])
    client.send(get(b"/next"))
    assert upstream.head() == get(b"/next")
    assert not stays.has_caller()


def test_endpoints_that_appear_end_a_503(mesh: Mesh) -> None:
    service = mesh.service([])
    client = mesh.connect(service)
    client.send(get())
    assert client.answer()[0] == 503
    server = mesh.listen()
    mesh.change(service, [Subset([server])])
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(ok())
    assert client.answer()[0] == 200


def test_weights_moved_under_load_fail_no_request(mesh: Mesh) -> None:
    with Answering(mesh.listen(), b"v1") as first, Answering(mesh.listen(), b"v2") as second:
        service = mesh.split([Subset([first.server], 90), Subset([second.server], 10)])
        clients = [mesh.connect(service) for _ in range(8)]
        answers = []
        for round_ in range(60):
            for client in clients:
                client.send(get())
            if round_ == 30:
                mesh.change(service, [Subset([first.server], 50), Subset([second.server], 50)])
            answers += [client.answer() for client in clients]
    assert {status for status, _, _ in answers} == {200}
    assert abs([body for _, _, body in answers[31 * 8 :]].count(b"v2") - 29 * 4) <= max_deviation(29 * 8)


# ── A pod that leaves ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def leaving(mesh: Mesh) -> Iterator[Mesh]:
    """`client` comes back after the test."""
    yield mesh
    mesh.close_all()
    mesh.serve("client")


def test_a_pod_that_leaves_lets_its_requests_end_and_accepts_no_more(leaving: Mesh) -> None:
    mesh = leaving
    server = mesh.listen()
    service = mesh.service([server])
    client = mesh.connect(service)
    client.send(post(b"12345")[:-3])
    upstream = server.accept()
    upstream.head()
    mesh.forget("client", 20.0)
    client.send(b"345")
    assert upstream.read(5) == b"12345"
    upstream.send(ok(b"done", b"Connection: close"))
    assert client.answer()[2] == b"done"
    late = mesh.connect(service)  # the kernel queues it for whoever serves the pod next
    client.close()
    upstream.close()
    assert mesh.forgotten().cut_connections == 0
    late.send(get())
    mesh.serve("client")
    assert server.accept().head() == get(), "the connection waited in the listener's queue"


def test_a_pod_whose_connections_do_not_end_is_cut_off_after_the_drain(leaving: Mesh) -> None:
    mesh = leaving
    server = mesh.listen()
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    started_s = time.monotonic()
    mesh.forget("client", 1.0)
    assert mesh.forgotten().cut_connections == 1
    assert 0.5 < time.monotonic() - started_s < 4.0
    assert client.is_reset()
    assert upstream.is_reset()


def test_a_pod_that_leaves_at_once_cuts_neither_idle_connections_nor_the_answer_under_way(leaving: Mesh) -> None:
    """Keep-alive clients of a pod that leaves the mesh see an end between two requests, never a failed one."""
    mesh = leaving
    server = mesh.listen()
    service = mesh.service([server])
    idle, busy = mesh.connect(service), mesh.connect(service)
    idle.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(ok(b"first"))
    assert idle.answer()[2] == b"first"
    busy.send(get())
    upstream.head()
    mesh.forget("client", 0.0)
    assert idle.rest() == b""
    upstream.send(ok(b"last"))
    status, head, body = busy.answer()
    assert (status, body) == (200, b"last")
    assert b"\r\nConnection: close\r\n" in head
    assert busy.rest() == b""
    assert mesh.forgotten().cut_connections == 0


def test_nothing_of_a_forgotten_pod_stays_open_in_the_worker(leaving: Mesh) -> None:
    """A descriptor left open would pin its namespace."""
    mesh = leaving
    mesh.forget("client", 0.0)
    mesh.forgotten()
    empty = mesh.open_files()
    mesh.telemetry()
    mesh.serve("client")
    server = mesh.listen()
    http, tcp = mesh.service([server]), mesh.service([server], Protocol.TCP)
    for _ in range(5):
        mesh.connect(http).send(get())
        server.accept()
        mesh.connect(tcp).send(b"x")
        server.accept().read(1)
    mesh.connect(mesh.service([server], Protocol.UNDECLARED))
    server.accept()  # detection waits for either side
    for upstream in server.accepted[
        :6:2
    ]:  # of five requests three are answered: two stay, three leave idle connections
        upstream.head()
        upstream.send(ok())
    mesh.until(lambda: mesh.counted_requests() == 3, "three answers to pass")
    assert mesh.open_files() >= empty + 2 * 11
    mesh.forget("client", 0.0)
    assert mesh.forgotten().cut_connections == 8  # all but the three idle ones, which ended without a cut
    assert mesh.open_files() == empty


def test_each_new_connection_follows_the_policy_of_its_moment(mesh: Mesh) -> None:
    """The listener remembers where the last one to this address went."""
    tcp, http, other = mesh.listen(), mesh.listen(), mesh.listen()
    address = mesh.service([tcp], Protocol.TCP)
    for _ in range(2):
        mesh.connect(address).send(b"hello")
        assert tcp.accept().read(5) == b"hello"
    mesh.change(address, [Subset([http])], Protocol.HTTP)
    for _ in range(2):
        client = mesh.connect(address)
        client.send(get())
        upstream = http.accepted[0] if http.accepted else http.accept()
        assert upstream.head() == get()
        upstream.send(ok())
        assert client.answer()[0] == 200
    mesh.change(address, [Subset([other])], Protocol.TCP)
    mesh.connect(address).send(b"again")
    assert other.accept().read(5) == b"again"
