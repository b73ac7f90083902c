"""Which packets are meant: what people write, refused in words where it is wrong; and the rules that it becomes."""

from ipaddress import ip_network

import pytest

from agent.explain.packet import Way
from agent.tracing import headers
from agent.tracing.filter import (
    Chosen,
    Ends,
    Filter,
    InvalidFilter,
    conditions,
    parse_ends,
    parse_interface,
    parse_mark,
    parse_protocol,
)
from agent.tracing.table import NAME, script
from tests.unit.agent.tracing.messages import IPV4, ip_header, tcp_header


@pytest.mark.parametrize(
    ("text", "network", "ports"),
    [
        ("10.0.0.9:80", "10.0.0.9/32", (80, 80)),
        ("10.0.0.9", "10.0.0.9/32", None),
        ("10.0.0.0/8", "10.0.0.0/8", None),
        ("10.1.2.3/8:8000-8010", "10.0.0.0/8", (8000, 8010)),
        (":53", None, (53, 53)),
        ("fd00::9", "fd00::9/128", None),
        ("[fd00::9]:80", "fd00::9/128", (80, 80)),
        ("[fd00::]", "fd00::/128", None),
        ("[fd00::/64]:80", "fd00::/64", (80, 80)),
    ],
)
def test_ends_are_read(text: str, network: str | None, ports: tuple[int, int] | None) -> None:
    assert parse_ends("--to", text) == Ends(None if network is None else ip_network(network), ports)


@pytest.mark.parametrize(
    "text",
    ["", "web", "10.0.0.9:", "10.0.0.9:0", "10.0.0.9:65536", "10.0.0.9:90-80", "10.0.0.9:80:90", "fe80::1%eth0", "[::1",
     "10.0.0.9; drop", "10.0.0.9:80 accept", "[]", ":٣", "300.0.0.1"],
)  # fmt: skip
def test_what_is_no_end_is_refused_with_the_option_and_a_remedy(text: str) -> None:
    with pytest.raises(InvalidFilter, match=r"give|names") as refused:
        parse_ends("--to", text)
    assert refused.value.option == "--to"


@pytest.mark.parametrize("text", ["eth0\n", 'a"b', "a b", "", "x" * 16, "a/b", "eth*", "\x1b[2J", "a\\b"])
def test_what_is_no_interface_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilter, match="no interface"):
        parse_interface("--iface", text)


@pytest.mark.parametrize(
    ("text", "mark"), [("0x539", (0x539, 0xFFFFFFFF)), ("5/0xf", (5, 15)), ("0x1ff/0xff", (255, 255))]
)
def test_marks_are_read(text: str, mark: tuple[int, int]) -> None:
    assert parse_mark("--mark", text) == mark


@pytest.mark.parametrize("text", ["", "x", "-1", "0x1/0", "4294967296", "1/2/3", "0x539\n"])
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilter, match="give a mark"):
        parse_mark("--mark", text)


@pytest.mark.parametrize(("text", "number"), [("tcp", 6), ("UDP", 17), ("icmpv6", 58), ("47", 47)])
def test_protocols_are_read(text: str, number: int) -> None:
    assert parse_protocol("--proto", text) == number


@pytest.mark.parametrize("text", ["", "http", "256", "-1", "٣"])
def test_what_is_no_protocol_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilter, match="give tcp"):
        parse_protocol("--proto", text)


def test_what_contradicts_itself_is_refused() -> None:
    four, six = parse_ends("--to", "10.0.0.9"), parse_ends("--from", "fd00::1")
    with pytest.raises(InvalidFilter, match="family"):
        Filter(destination=four, source=six)
    with pytest.raises(InvalidFilter, match="no ports"):
        Filter(destination=parse_ends("--to", ":80"), protocol=1)
    with pytest.raises(InvalidFilter, match="no user"):
        Filter(uid=0, way=Way.INBOUND)


def test_by_default_a_rule_takes_what_opens_tcp_and_others_take_the_rest_but_neighbour_discovery() -> None:
    assert conditions(Filter(), Way.OUTBOUND) == (
        "meta l4proto 6 tcp flags & (fin|syn|rst|ack) == syn",
        "meta l4proto != { 6, 58 }",
        "meta l4proto 58 icmpv6 type echo-request",
    )


def test_every_packet_is_one_rule_without_condition() -> None:
    assert conditions(Filter(chosen=Chosen.EVERY), Way.INBOUND) == ("",)


def test_all_that_is_given_stands_in_each_rule() -> None:
    wanted = Filter(
        parse_ends("--to", "10.0.0.9:80"), parse_ends("--from", "10.0.0.0/8"), 6, 1000, (0x39, 0xFF), "eth0"
    )
    assert conditions(wanted, Way.OUTBOUND) == (
        'oifname "eth0" meta l4proto 6 ip saddr 10.0.0.0/8 ip daddr 10.0.0.9/32 th dport 80 meta skuid 1000 '
        "meta mark & 0xff == 0x39 tcp flags & (fin|syn|rst|ack) == syn",
    )


def test_what_comes_in_has_no_user_so_a_filter_by_user_asks_the_output_hook_only() -> None:
    made = script("headgate-trace-1-1", Filter(uid=1000))
    assert "hook output priority -400" in made and "prerouting" not in made


def test_the_table_goes_with_its_owner_and_has_a_name_that_others_know() -> None:
    assert "\tflags owner\n" in script("headgate-trace-1-1", Filter())
    assert NAME.fullmatch("headgate-trace-1-1")


@pytest.mark.parametrize(
    ("here", "there", "taken"),
    [
        (("10.0.0.5", 4000), ("10.0.0.9", 80), True),
        (("10.0.0.9", 80), ("10.0.0.5", 4000), True),
        (("10.0.0.9", 4000), ("10.0.0.5", 80), False),
        (("10.0.0.5", 4000), ("10.0.0.8", 80), False),
    ],
)
def test_either_way_takes_a_packet_and_its_answer(
    here: tuple[str, int], there: tuple[str, int], *, taken: bool
) -> None:
    found = headers.of(IPV4, ip_header(here[0], there[0]), tcp_header(here[1], there[1]))
    assert found is not None
    assert Filter(destination=parse_ends("--to", "10.0.0.9:80")).either_way(found.protocol, *found.ends) is taken
