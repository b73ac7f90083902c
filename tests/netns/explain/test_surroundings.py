"""What the kernel says of routes, sockets and addresses when it is asked about one packet."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from agent.explain.packet import ICMP, TCP, UDP
from agent.explain.surroundings import Asked, Connection, Ends, NoSocket, Route, RouteKind, Socket
from agent.kernel.surroundings import KernelSurroundings
from agent.pods import IPAddress
from tests.netns.explain.oracle import Scene

_IP_TRANSPARENT, _SO_MARK = 19, 36


@pytest.fixture(scope="module")
def free() -> Iterator[Scene]:
    """It forwards, and has a local route for mark 0x111; and one that refuses."""
    with Scene() as scene:
        for family in ("-4", "-6"):
            scene.pod.shell("ip", family, "rule", "add", "fwmark", "0x111", "lookup", "100")
            scene.pod.shell("ip", family, "route", "add", "local", "default", "dev", "lo", "table", "100")
        for number, kind in enumerate(("blackhole", "unreachable", "prohibit"), 1):
            scene.pod.shell("ip", "route", "add", kind, f"192.0.2.{number}/32")
        yield scene


@pytest.fixture(scope="module")
def strict() -> Iterator[Scene]:
    """It does not forward, and wants sources to come from where they are."""
    with Scene(forwards=False, rp_filter=1) as scene:
        yield scene


def route(
    scene: Scene, to: str, source: str = "", *, mark: int = 0, by: str | None = None, uid: int | None = None
) -> Route | None:
    asked = Asked(ip_address(to), ip_address(source) if source else None, mark, by, uid)
    return scene.pod.run(lambda: KernelSurroundings().route(asked))


def a(text: str) -> IPAddress:
    return ip_address(text)


# ── Sent ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_leaves_with_the_source_that_the_kernel_takes(free: Scene) -> None:
    assert route(free, "10.1.2.3") == Route(RouteKind.UNICAST, "eth0", a("10.0.0.5"), 254)
    assert route(free, "10.9.0.77") == Route(RouteKind.UNICAST, "net1", a("10.9.0.5"), 254)
    assert route(free, "fd01::3") == Route(RouteKind.UNICAST, "eth0", a("fd00::5"), 254)


def test_what_stays_here_is_of_the_local_table(free: Scene, strict: Scene) -> None:
    """Also where the two tables are one, and rtnetlink calls both main."""
    for scene in (free, strict):
        assert route(scene, "10.0.0.5") == Route(RouteKind.LOCAL, "lo", a("10.0.0.5"), 255)
        assert route(scene, "127.0.0.7") == Route(RouteKind.LOCAL, "lo", a("127.0.0.1"), 255)
        assert route(scene, "fd00::5") == Route(RouteKind.LOCAL, "lo", a("fd00::5"), 255)


def test_broadcast_and_multicast(free: Scene) -> None:
    assert (found := route(free, "10.0.0.255")) is not None and found.kind is RouteKind.BROADCAST
    assert (found := route(free, "224.0.0.9")) is not None and found.kind is RouteKind.MULTICAST


def test_a_mark_leads_to_a_local_route_for_who_has_a_source(free: Scene) -> None:
    assert route(free, "10.1.2.3", "10.0.0.5", mark=0x111) == Route(RouteKind.LOCAL, "lo", None, 100)
    assert route(free, "10.1.2.3", "10.0.0.5", mark=0x112) == Route(RouteKind.UNICAST, "eth0", None, 254)


def test_a_local_route_to_somebody_elses_address_refuses_who_has_none(free: Scene) -> None:
    """The source it would take is that address (include/net/route.h: ip_route_connect)."""
    assert route(free, "10.1.2.3", mark=0x111) == Route(RouteKind.NONE)


def test_a_transparent_sockets_source_is_nobodys_here_and_may_send(free: Scene) -> None:
    found = route(free, "10.1.2.3", "172.16.5.5")
    assert found is not None and (found.kind, found.interface) == (RouteKind.UNICAST, "eth0")


def test_loopbacks_source_does_not_leave(free: Scene) -> None:
    assert route(free, "10.1.2.3", "127.0.0.1") == Route(RouteKind.NONE)


@pytest.mark.parametrize("to", ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
def test_routes_that_refuse(free: Scene, to: str) -> None:
    assert route(free, to) == Route(RouteKind.NONE)


# ── Arriving ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_arrives_for_the_pod_or_passes_through(free: Scene) -> None:
    assert (found := route(free, "10.0.0.5", "10.1.2.3", by="eth0")) is not None and found.kind is RouteKind.LOCAL
    found = route(free, "10.9.0.77", "10.1.2.3", by="eth0")
    assert found is not None and (found.kind, found.interface) == (RouteKind.UNICAST, "net1")
    found = route(free, "fd09::77", "fd01::3", by="eth0")
    assert found is not None and (found.kind, found.interface) == (RouteKind.UNICAST, "net1")


def test_who_does_not_forward_has_no_route_for_others(strict: Scene) -> None:
    assert route(strict, "10.9.0.77", "10.1.2.3", by="eth0") == Route(RouteKind.NONE)
    assert route(strict, "fd09::77", "fd01::3", by="eth0") == Route(RouteKind.NONE)


def test_rp_filter_refuses_a_source_from_elsewhere(free: Scene, strict: Scene) -> None:
    assert route(strict, "10.9.0.5", "10.1.2.3", by="net1") == Route(RouteKind.REFUSED)
    assert (found := route(free, "10.9.0.5", "10.1.2.3", by="net1")) is not None and found.kind is RouteKind.LOCAL


def test_martians_are_refused(free: Scene) -> None:
    assert route(free, "127.0.0.1", "10.1.2.3", by="eth0") == Route(RouteKind.REFUSED)
    assert route(free, "10.0.0.5", "127.0.0.1", by="eth0") == Route(RouteKind.REFUSED)


def test_an_interface_that_is_not_there_is_not_known(free: Scene) -> None:
    assert route(free, "10.0.0.5", "10.1.2.3", by="nowhere0") is None
    assert free.pod.run(lambda: KernelSurroundings().addresses("nowhere0")) is None


# ── Sockets ────────────────────────────────────────────────────────────────────────────────────────────────────────
def who(scene: Scene, protocol: int, to: str, port: int | None) -> Socket | NoSocket | None:
    other = "10.1.2.3" if ip_address(to).version == 4 else "fd01::3"
    ends = Ends(protocol, ip_address(other), 40_000, ip_address(to), port)
    return scene.pod.run(lambda: KernelSurroundings().socket(ends))


def listening(family: int, kind: int, address: str, port: int) -> socket.socket:
    """Transparent, with mark 0x539."""
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, 0x539)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)])
def test_a_sockets_mark_and_whether_it_is_transparent_or_for_every_address(
    free: Scene, kind: int, protocol: int
) -> None:
    with free.pod.run(listening, socket.AF_INET, kind, "0.0.0.0", 7001):
        assert who(free, protocol, "10.0.0.5", 7001) == Socket(0x539, transparent=True, wildcard=True)
        assert isinstance(who(free, protocol, "10.0.0.5", 7002), NoSocket)
        assert isinstance(who(free, protocol, "fd00::5", 7001), NoSocket)
    with free.pod.run(listening, socket.AF_INET, kind, "10.0.0.5", 7001):
        assert who(free, protocol, "10.0.0.5", 7001) == Socket(0x539, transparent=True, wildcard=False)
        assert isinstance(who(free, protocol, "10.9.0.5", 7001), NoSocket)


def test_an_ipv6_socket_takes_ipv4_unless_it_says_otherwise(free: Scene) -> None:
    with free.pod.run(socket.socket, socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.bind(("::", 7003))
        sock.listen(1)
        assert who(free, TCP, "fd00::5", 7003) == Socket(0, transparent=False, wildcard=True)
        assert who(free, TCP, "10.0.0.5", 7003) == Socket(0, transparent=False, wildcard=True)


def test_what_has_no_ports_has_no_socket_that_netfilter_looks_for(free: Scene) -> None:
    assert isinstance(who(free, ICMP, "10.0.0.5", None), NoSocket)


# ── Addresses ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_addresses_of_an_interface_primary_first_widest_scope_first(free: Scene) -> None:
    found = free.pod.run(lambda: KernelSurroundings().addresses("eth0"))
    assert found is not None
    of_four = [str(one) for one in found if one.version == 4]
    of_six = [str(one) for one in found if one.version == 6]
    assert of_four == ["10.0.0.5"]
    assert of_six[0] == "fd00::5"
    assert ip_address(of_six[-1]).is_link_local


# ── Connections ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_a_redirected_connections_packets_become_and_its_answers(strict: Scene) -> None:
    strict.nft(
        "table ip t {\n chain o {\n type nat hook output priority -100;\n tcp dport 80 redirect to :7010;\n }\n}"
    )
    try:
        with (
            strict.pod.run(socket.create_server, ("127.0.0.1", 7010)),
            strict.pod.run(socket.create_connection, ("10.1.2.3", 80), 5) as sender,
        ):
            own, number = sender.getsockname()
            sent = Ends(TCP, a(own), number, a("10.1.2.3"), 80)
            back = Ends(TCP, a("127.0.0.1"), 7010, a(own), number)
            led, answered = strict.pod.run(lambda: [KernelSurroundings().connection(ends, 0) for ends in (sent, back)])
            assert led == Connection(a(own), number, a("127.0.0.1"), 7010)
            assert answered == Connection(a("10.1.2.3"), 80, a(own), number, answers=True)
            assert strict.pod.run(lambda: KernelSurroundings().connection(sent, 7)) is None
    finally:
        strict.clear()
