"""What a person says of a packet: what was not said is settled, what contradicts itself refused with the remedy."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from agent.explain.packet import ACK, ICMP, ICMP6, SYN, TCP, UDP, ConntrackState, Sender, Way
from agent.explain.surroundings import Asked, Connection, Ends, NoSocket, Route, RouteKind, Socket
from agent.pods import IPAddress
from agent.ruleset.packet_options import BadPacket, End, Held, Options, Place, described, end

OWN4, OWN6, ELSEWHERE = ip_address("10.0.0.5"), ip_address("fd00::5"), ip_address("192.0.2.2")


class Routes:
    """All that is no address of the pod leaves by eth0, but 172.16.0.0/12, which is behind eth1."""

    def route(self, asked: Asked, /) -> Route | None:
        behind = asked.destination.version == 4 and str(asked.destination).startswith("172.")
        return Route(RouteKind.UNICAST, "eth1" if behind else "eth0")

    def socket(self, ends: Ends, /) -> Socket | NoSocket | None:
        return None

    def addresses(self, interface: str, /) -> tuple[IPAddress, ...] | None:
        return None

    def connection(self, ends: Ends, zone: int, /) -> Connection | None:
        return None


POD = Place(
    Routes(),
    ("lo", "eth0", "eth1"),
    (Held("lo", ip_address("127.0.0.1"), 8), Held("eth0", OWN4, 24), Held("eth0", OWN6, 64)),
)
OUT = Options(End(ELSEWHERE, 80))
IN = Options(End(OWN4, 8080))


# ── What is not said ───────────────────────────────────────────────────────────────────────────────────────────────
def test_a_packet_to_elsewhere_is_a_syn_that_root_sends_from_here() -> None:
    told = described(OUT, POD)
    packet = told.packet
    assert (packet.way, packet.protocol, packet.tcp_flags, packet.state) == (
        Way.OUTBOUND,
        TCP,
        SYN,
        ConntrackState.NEW,
    )
    assert packet.sender == Sender(0, 0) and packet.source is None and packet.interface is None
    assert told.assumed == ("sent by uid 0, gid 0 (--uid, --gid N for another)",)


def test_what_was_said_is_not_assumed() -> None:
    told = described(replace(OUT, uid=1337, gid=1337, mark=0x539, source=End(OWN4, 5000)), POD)
    assert told.assumed == ()
    assert (told.packet.sender, told.packet.mark) == (Sender(1337, 1337), 0x539)
    assert (told.packet.source, told.packet.source_port) == (OWN4, 5000)


def test_a_packet_to_the_own_address_arrives_from_a_neighbour_where_the_address_is() -> None:
    told = described(IN, POD)
    assert (told.packet.way, told.packet.interface, told.packet.source) == (
        Way.INBOUND,
        "eth0",
        ip_address("10.0.0.1"),
    )
    assert told.packet.sender is None
    assert told.assumed == (
        "inbound: 10.0.0.5 is an address of this namespace (--direction outbound: sent by itself)",
        "arrives on eth0, which has 10.0.0.5 (--iface for another)",
        "from 10.0.0.1, an address on eth0's link (--from ADDR for another)",
    )


def test_a_packet_from_elsewhere_arrives_where_answers_to_it_would_leave() -> None:
    told = described(replace(IN, source=End(ip_address("172.16.0.9"))), POD)
    assert (told.packet.way, told.packet.interface) == (Way.INBOUND, "eth1")


@pytest.mark.parametrize("said", [{"uid": 0}, {"gid": 5}, {"mark": 0}, {"way": Way.OUTBOUND}, {"source": End(OWN4)}])
def test_who_speaks_of_the_sender_means_a_packet_that_is_sent_here(said: dict[str, Any]) -> None:
    assert described(replace(IN, **said), POD).packet.way is Way.OUTBOUND


def test_loopback_is_called_from_here() -> None:
    assert described(Options(End(ip_address("127.0.0.1"), 80)), POD).packet.way is Way.OUTBOUND
    assert described(Options(End(ip_address("::1"), 80)), POD).packet.way is Way.OUTBOUND


def test_an_interface_makes_it_inbound() -> None:
    packet = described(replace(OUT, interface="eth1", source=End(ip_address("172.16.0.9"))), POD).packet
    assert (packet.way, packet.interface, packet.destination) == (Way.INBOUND, "eth1", ELSEWHERE)


def test_of_an_established_connection_it_is_an_ack() -> None:
    assert described(replace(OUT, state=ConntrackState.ESTABLISHED), POD).packet.tcp_flags == ACK
    assert described(replace(OUT, state=ConntrackState.ESTABLISHED, flags=SYN), POD).packet.tcp_flags == SYN


def test_icmp_is_an_echo_request_of_its_family() -> None:
    four = described(Options(End(ELSEWHERE), protocol=ICMP), POD).packet
    six = described(Options(End(ip_address("2001:db8::2")), protocol=ICMP), POD).packet
    assert (four.protocol, four.icmp_type, four.icmp_code) == (ICMP, 8, 0)
    assert (six.protocol, six.icmp_type) == (ICMP6, 128)


def test_without_a_port_that_is_said() -> None:
    assert "to any port" in described(Options(End(ELSEWHERE)), POD).assumed[-1]


def test_on_an_interface_without_addresses_nobody_is_a_neighbour() -> None:
    told = described(replace(OUT, interface="eth1"), POD)
    assert told.packet.source is None and "from any address" in told.assumed[-1]


# ── What cannot be ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("options", "option", "words"),
    [
        (replace(OUT, source=End(OWN6)), "--from", "is IPv6 and --to is IPv4"),
        (replace(OUT, source=End(ip_address("224.0.0.1"))), "--from", "multicast"),
        (replace(OUT, protocol=ICMP6, to=End(ELSEWHERE)), "--proto", "give --proto icmp"),
        (replace(OUT, protocol=ICMP), "--to", "has no ports: give 192.0.2.2 alone"),
        (Options(End(ELSEWHERE), End(OWN4, 7), protocol=47), "--from", "protocol 47 has no ports"),
        (replace(OUT, protocol=UDP, flags=SYN), "--flags", "leave --proto out"),
        (replace(OUT, way=Way.OUTBOUND, interface="eth0"), "--iface", "--direction inbound"),
        (replace(IN, interface="eth0", uid=5), "--uid", "--direction outbound"),
        (replace(IN, way=Way.INBOUND, gid=5), "--gid", "--direction outbound"),
        (replace(IN, interface="eth0", mark=5), "--mark", "--direction outbound"),
        (replace(IN, interface="eth9"), "--iface", "'eth9' does not exist there: lo, eth0, eth1"),
        (replace(IN, interface="lo"), "--iface", "was sent from here"),
        (replace(OUT, way=Way.INBOUND), "--iface", "say where the packet arrives: eth0, eth1"),
    ],
)
def test_what_contradicts_itself_is_named_with_the_remedy(options: Options, option: str, words: str) -> None:
    with pytest.raises(BadPacket) as refused:
        described(options, POD)
    assert refused.value.option == option and words in refused.value.reason


def test_with_one_interface_there_is_nothing_to_ask() -> None:
    alone = Place(Routes(), ("lo", "eth0"))
    assert described(replace(OUT, way=Way.INBOUND), alone).packet.interface == "eth0"


def test_a_hostile_interface_name_is_told_printable() -> None:
    hostile = replace(POD, interfaces=("lo", "x\x1b[2J"))
    with pytest.raises(BadPacket) as refused:
        described(replace(IN, interface="y\x1b[2J"), hostile)
    assert "\x1b" not in refused.value.reason


# ── Addresses ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("10.0.0.5", "10.0.0.5", None),
        ("10.0.0.5:80", "10.0.0.5", 80),
        ("fd00::5", "fd00::5", None),
        ("[fd00::5]", "fd00::5", None),
        ("[fd00::5]:65535", "fd00::5", 65535),
        ("::1", "::1", None),
    ],
)
def test_an_end_as_people_write_it(text: str, address: str, port: int | None) -> None:
    assert end(text) == End(ip_address(address), port)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("example.com:80", "is a name, and rules know addresses only"),
        ("localhost", "getent ahosts"),
        ("10.0.0.0/8", "is a network"),
        ("10.0.0.5:70000", "'70000' is no port: 1 to 65535"),
        ("10.0.0.5:0", "is no port"),
        ("10.0.0.5:", "is no port"),
        ("10.0.0.5:8o", "is no port"),
        ("10.0.0.5:٨٠", "is no port"),
        ("[fd00::5:80", "[2001:db8::1]:80"),
        ("[fd00::5]80", "[2001:db8::1]:80"),
        ("fe80::1%eth0", "--iface"),
        ("0.0.0.0:80", "give 127.0.0.1"),
        ("::", "give ::1"),
        ("::ffff:10.0.0.5", "give 10.0.0.5"),
        ("", "is no address"),
        ("10.0.0.256", "is no address"),
        ("x\x1b[2J", "is a name"),
    ],
)
def test_an_end_that_is_none_is_refused_with_the_remedy(text: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        end(text)
    assert words in str(refused.value) and str(refused.value).isprintable()
