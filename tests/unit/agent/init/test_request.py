"""Names by the container's files, families by its addresses, and sets less what is taken out of them."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.init.accounts import Accounts
from agent.init.reading import resolvers
from agent.init.request import Families, Refused, families_of, outside, without
from agent.plan import IPFamily
from agent.plan.ranges import Ranges

BOTH = (IPFamily.IPV4, IPFamily.IPV6)
PASSWD = """root:x:0:0:root:/root:/bin/bash
# daemon:x:1:1::/:
envoy:x:1337:1337:,,,:/:/bin/false
envoy:x:1:1:second of the name:/:
broken
:x:5:5::/:
huge:x:99999999999:1::/:
minus:x:-1:1::/:
1000:x:2000:1:a user whose name is a number:/:
"""


def test_names_are_those_of_the_file_the_first_of_a_name_counts() -> None:
    assert Accounts.of(PASSWD, "").users == {"root": 0, "envoy": 1337, "1000": 2000}


def test_names_numbers_and_ranges_become_numbers() -> None:
    accounts = Accounts.of(PASSWD, "mesh:x:2000:a,b\n")
    assert accounts.user_ids("envoy, 5,10-20") == "1337,5,10-20"
    assert accounts.group_ids("mesh") == "2000"


def test_a_name_that_nobody_has_is_shown_printable() -> None:
    with pytest.raises(ValueError, match=r"'no\\x1bbody' is no user of /etc/passwd"):
        Accounts.of(PASSWD, "").user_ids("no\x1bbody")


@pytest.mark.parametrize(
    ("wanted", "addresses", "families"),
    [
        (Families.ALL, ["10.0.0.5"], BOTH),
        (Families.IPV4, ["fd00::5"], (IPFamily.IPV4,)),
        (Families.IPV6, ["10.0.0.5"], (IPFamily.IPV6,)),
        (Families.FIRST_ADDRESS, ["127.0.0.1", "10.0.0.5", "::1", "fd00::5"], (IPFamily.IPV4,)),
        (Families.FIRST_ADDRESS, ["127.0.0.1", "::1", "fe80::1", "fd00::5"], BOTH),
        (Families.FIRST_ADDRESS, ["127.0.0.1", "169.254.1.1", "::1"], BOTH),
        (Families.FIRST_ADDRESS, [], BOTH),
    ],
)
def test_families_where_istio_looks_at_the_first_usable_address(
    wanted: Families, addresses: list[str], families: tuple[IPFamily, ...]
) -> None:
    assert families_of(wanted, tuple(map(ip_address, addresses))) == families


_RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=5)


@given(_RANGES, _RANGES)
def test_one_set_less_another_holds_what_only_the_first_holds(some: list[list[int]], taken: list[list[int]]) -> None:
    one, other = (Ranges.of(*((first, last) for first, last in spans)) for spans in (some, taken))
    left = without(one, other)
    assert [n for n in range(62) if n in left] == [n for n in range(62) if n in one and n not in other]
    assert left == Ranges.of(*left.spans)


def test_networks_that_are_excluded_altogether_are_no_longer_included() -> None:
    networks = tuple(map(ip_network, ("10.1.0.0/16", "10.2.0.0/16", "fd00::/64")))
    excluded = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"), ip_network("10.2.3.0/24"))
    assert outside(networks, excluded) == (ip_network("10.2.0.0/16"),)


def test_servers_of_resolv_conf_are_addresses_each_once_without_a_zone() -> None:
    text = "; comment\nnameserver 10.96.0.10\nnameserver\nnameserver x\nnameserver 10.96.0.10 # twice\n"
    assert resolvers(f"{text}nameserver fe80::1%eth0\nnameserver fd00::a\noptions ndots:5\n") == (
        ip_address("10.96.0.10"),
        ip_address("fd00::a"),
    )


def test_a_refusal_shows_flag_and_value_printable_and_short() -> None:
    shown = str(Refused("-b", "\x1b[2J" + "x" * 500, "no"))
    assert shown.isprintable()
    assert len(shown) < 200
