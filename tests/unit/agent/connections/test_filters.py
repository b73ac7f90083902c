"""What is asked for is shown, and what cannot be understood is said."""

from ipaddress import ip_address

import pytest

from agent.connections.filters import Filter, peer_of
from agent.connections.values import Connection, End, Path, Process, Reason, Way

OUT = Connection(
    "tcp",
    Way.OUTBOUND,
    End(ip_address("10.0.0.5"), 4000, Process(11, "curl")),
    End(ip_address("10.96.0.10"), 80),
    Path.HTTP,
    listener=15001,
)
PAST = Connection(
    "tcp",
    Way.INBOUND,
    End(ip_address("fd00::7"), 4000),
    End(ip_address("fd00::5"), 8080, Process(12, "nginx")),
    Path.DIRECT,
    reason=Reason.DRIFT,
)


@pytest.mark.parametrize(
    ("text", "holds_out"),
    [
        ("10.96.0.10", True),
        ("10.96.0.10:80", True),
        ("10.96.0.10:81", False),
        ("10.0.0.0/8", True),
        ("10.96.0.10/12:80", True),
        ("10.97.0.0/16", False),
        (":80", True),
        (":8080", False),
        ("fd00::5", False),
        ("[fd00::5]:80", False),
    ],
)
def test_a_destination(text: str, holds_out: bool) -> None:
    assert Filter(destination=peer_of(text)).holds(OUT) is holds_out


@pytest.mark.parametrize("text", ["fd00::5", "[fd00::5]", "[fd00::5]:8080", "fd00::/64", "[fd00::]:8080", ":8080"])
def test_an_ipv6_destination(text: str) -> None:
    assert Filter(destination=peer_of(text)).holds(PAST) is (text != "[fd00::]:8080")


@pytest.mark.parametrize(
    "text",
    ["", "x", "10.0.0.5:x", "10.0.0.5:0", "10.0.0.5:65536", "[fd00::5", "[fd00::5]80", "10.0.0.0/33", "\x1b[31m"],
)
def test_what_is_no_address_is_said(text: str) -> None:
    if text == "":
        assert peer_of(text).holds(OUT.source), "nothing said, nothing restricted"
        return
    with pytest.raises(ValueError, match=r"ADDRESS|port"):
        peer_of(text)


def test_each_part_of_a_filter_must_hold() -> None:
    assert Filter(source=peer_of("10.0.0.5"), port=80, protocol="tcp", path=Path.HTTP, pid=11).holds(OUT)
    for other in (
        Filter(source=peer_of("10.0.0.6")),
        Filter(port=81),
        Filter(protocol="udp"),
        Filter(path=Path.TCP),
        Filter(way=Way.INBOUND),
        Filter(pid=12),
        Filter(unsteered=True),
    ):
        assert not other.holds(OUT)


def test_a_port_is_that_of_either_end_or_of_the_listener() -> None:
    assert [port for port in (80, 4000, 15001, 15006) if Filter(port=port).holds(OUT)] == [80, 4000, 15001]


@pytest.mark.parametrize("reason", Reason)
def test_unsteered_is_what_might_have_been_the_proxys(reason: Reason) -> None:
    one = Connection("tcp", Way.OUTBOUND, OUT.source, OUT.destination, Path.DIRECT, reason=reason)
    never = {Reason.LOOPBACK, Reason.LINK_LOCAL, Reason.UDP}
    assert Filter(unsteered=True).holds(one) is (reason not in never)
