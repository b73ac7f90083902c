"""A sidecar, called and calling: each connection passes it as often as it should, and none for ever."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.kernel.backends import Backend
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT
from tests.netns.cases.application import Application, Seen, ask
from tests.netns.cases.wire import Family, dial, dial_as, own
from tests.netns.sidecar.conftest import Place
from tests.netns.sidecar.rules import DIRECT_PORT
from tests.netns.sidecar.sidecars import PASSTHROUGH, USER, Counts, Kind, Running, wait_for

APPLICATION_PORT = 8080
SERVER_PORT = 8000


# Envoy on every backend; ours, which meets the same rules, on the usual one.
PAIRS = [(Kind.ENVOY, backend) for backend in Backend] + [
    (kind, Backend.NFTABLES) for kind in Kind if kind != Kind.ENVOY
]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: "-".join(word.value for word in pair))
def pair(request: pytest.FixtureRequest) -> tuple[Kind, Backend]:
    chosen: tuple[Kind, Backend] = request.param
    return chosen


@pytest.fixture(scope="module")
def kind(pair: tuple[Kind, Backend]) -> Kind:
    return pair[0]


@pytest.fixture(scope="module")
def backend(pair: tuple[Kind, Backend]) -> Backend:
    return pair[1]


@pytest.fixture(scope="module")
def running(place: Place) -> Iterator[Running]:
    with place.sidecar.running() as running:
        yield running


@pytest.fixture
def server(running: Running, place: Place, family: Family) -> Iterator[Application]:
    """Of the peer."""
    with Application(place.peer.netns, family.of(place.peer), SERVER_PORT) as application:
        yield application


@pytest.fixture
def application(running: Running, place: Place, family: Family) -> Iterator[Application]:
    """Of the pod."""
    with Application(place.pod.netns, family.of(place.pod), APPLICATION_PORT) as application:
        yield application


@contextmanager
def counted(place: Place, expected: Counts) -> Iterator[None]:
    """Exactly so many connections pass the sidecar meanwhile."""
    before = place.sidecar.counts()
    yield
    assert place.sidecar.counts() - before == expected


def whom_it_sees(place: Place, family: Family, client: str) -> str:
    """Which address the application has its callers from."""
    return client if place.sidecar.kind is Kind.TRANSPARENT else PASSTHROUGH[family.version]


def test_b01_b02_what_the_application_calls_passes_once(place: Place, family: Family, server: Application) -> None:
    with counted(place, Counts(1, 0)), dial(place.pod.netns, family.of(place.peer), SERVER_PORT) as client:
        seen = ask(client, http=False)
        assert seen.caller != own(client), "nobody came between"
    assert seen.caller[0] == family.of(place.pod)


def test_b20_b24_what_calls_the_application_passes_once(place: Place, family: Family, application: Application) -> None:
    target = (family.of(place.pod), APPLICATION_PORT)
    with counted(place, Counts(0, 1)), dial(place.peer.netns, *target) as client:
        seen = ask(client, http=False)
    assert seen.called == target
    assert seen.caller[0] == whom_it_sees(place, family, family.of(place.peer))


@pytest.mark.parametrize("http", [True, False], ids=["http", "tcp"])
def test_b28_with_a_sidecar_every_probe_meets_the_proxy_and_is_answered(
    place: Place, family: Family, application: Application, http: bool
) -> None:
    """Nothing on the node tells kubelet's connections from others."""
    target, before = (family.of(place.pod), APPLICATION_PORT), place.sidecar.counts()
    with dial(place.node, *target) as kubelet:
        assert ask(kubelet, http=http).called == target
    wait_for("it to be counted once", lambda: place.sidecar.counts() - before == Counts(0, 1))


def test_b06_the_application_calls_its_own_service(place: Place, family: Family, application: Application) -> None:
    """Out by the Service's address, and in again to the pod's own: both policies apply, each once."""
    with counted(place, Counts(1, 1)), dial(place.pod.netns, family.vip, 80) as client:
        seen = ask(client, http=False)
    assert seen.called == (family.of(place.pod), APPLICATION_PORT)
    assert seen.caller[0] == whom_it_sees(place, family, family.of(place.pod))


def test_b05_the_application_calls_itself(place: Place, family: Family, application: Application) -> None:
    with counted(place, Counts(0, 0)):
        for address in (family.of(place.pod), family.of(place.pod)):
            with dial(place.pod.netns, address, APPLICATION_PORT) as client:
                assert ask(client, http=False) == Seen(own(client), (address, APPLICATION_PORT))


def test_b10_an_excluded_port_is_direct(place: Place, family: Family, running: Running) -> None:
    target = (family.of(place.peer), DIRECT_PORT)
    with (
        Application(place.peer.netns, *target),
        counted(place, Counts(0, 0)),
        dial(place.pod.netns, *target) as client,
    ):
        assert ask(client, http=False) == Seen(own(client), target)


@pytest.mark.parametrize("port", [OUTBOUND_PORT, INBOUND_PORT])
def test_b32_a_call_of_a_listener_itself_ends(place: Place, family: Family, running: Running, port: int) -> None:
    """From outside, from the pod to its own address, and over loopback. Istio's Envoy lets a call of 15001 from outside
    in, as one of any port, and ends it at its own outbound listener."""
    places = ((place.peer.netns, family.of(place.pod)), (place.pod.netns, family.of(place.pod)))
    passes = place.sidecar.kind is Kind.ENVOY and port == OUTBOUND_PORT
    with counted(place, Counts(0, int(passes))):
        for where, address in (*places, (place.pod.netns, family.loopback)):
            try:
                with dial(where, address, port) as client:
                    client.sendall(b"hello\n")
                    assert client.recv(1) == b""
            except ConnectionError:
                pass
    wait_for("its connections to be closed", lambda: not _established(place, port))


def _established(place: Place, port: int) -> str:
    listing = place.pod.run(["ss", "-Htn", "state", "established", f"( sport = :{port} or dport = :{port} )"])
    return listing.stdout


def test_many_one_after_another_pass_once_each(
    place: Place, family: Family, server: Application, application: Application
) -> None:
    number = 200
    with counted(place, Counts(number, number)):
        for _ in range(number):
            for where, target in (
                (place.pod, (family.of(place.peer), SERVER_PORT)),
                (place.peer, (family.of(place.pod), APPLICATION_PORT)),
            ):
                with dial(where.netns, *target) as client:
                    ask(client, http=False)
    assert (len(server.seen), len(application.seen)) == (number, number)


@pytest.mark.parametrize("first", ["client", "server"])
def test_connections_end_on_both_sides_whoever_ends_first(
    place: Place, family: Family, running: Running, first: str
) -> None:
    """What a closed socket still has to say belongs to nobody's user: it must get through all the same."""
    with ExitStack() as stack:
        listener = stack.enter_context(place.peer.netns.listen(family.of(place.peer), 9000))
        listener.settimeout(5)
        client = stack.enter_context(dial(place.pod.netns, family.of(place.peer), 9000))
        client.sendall(b"hello\n")
        served, _ = listener.accept()
        stack.enter_context(served)
        served.settimeout(5)
        assert served.recv(6) == b"hello\n"
        one, other = (client, served) if first == "client" else (served, client)
        one.close()
        assert other.recv(1) == b""
        other.close()
        wait_until_over(place, 9000)


def test_what_the_sidecar_ends_first_ends_at_the_peer_too(place: Place, family: Family) -> None:
    """The last acknowledgement is of a socket that is closed, and of nobody's any more: not its user tells whose."""
    with place.peer.netns.listen(family.of(place.peer), 9001) as listener:
        listener.settimeout(5)
        upstream = dial_as(USER, place.pod.netns, family.of(place.peer), 9001)
        served, _ = listener.accept()
        with served:
            served.settimeout(5)
            upstream.close()
            assert served.recv(1) == b""
        wait_until_over(place, 9001)


def wait_until_over(place: Place, port: int) -> None:
    """No connection to this port of the peer waits for a word of the pod's any more."""
    states = ["last-ack", "closing", "fin-wait-1", "fin-wait-2", "close-wait"]
    named = [word for state in states for word in ("state", state)]
    wait_for(
        "the connection to be over",
        lambda: not place.peer.run(["ss", "-Htn", *named, f"sport = :{port}"]).stdout,
        lambda: place.peer.run(["ss", "-tno", f"sport = :{port}"]).stdout,
    )
