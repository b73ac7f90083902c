"""Translations: where NAT stands among the others, what it is asked for, and what its outcome changes behind it."""

from ipaddress import ip_address

import pytest

from agent.explain.outcome import Fate
from agent.explain.packet import ICMP, UDP, ConntrackState
from agent.explain.statements import (
    ACCEPT,
    DROP,
    Constant,
    Elements,
    Field,
    Looked,
    Match,
    Nat,
    NatKind,
    Notrack,
    Op,
    Opaque,
    Read,
)
from agent.explain.surroundings import Connection
from agent.explain.tables import Hook
from tests.unit.agent.explain.pod import (
    Pod,
    arriving,
    chain,
    dnat,
    equal,
    explained,
    filters,
    met,
    nat,
    passages,
    port,
    possible,
    redirect,
    said,
    saved,
    sent,
    table,
)


# ── Redirected ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_redirect_in_output_leads_to_loopback() -> None:
    rules = table(chain("out", nat(Hook.OUTPUT), (redirect(15001),)))
    assert said(explained(sent(), rules)) == "redirect 127.0.0.1 15001: delivered here"
    assert said(explained(sent("fd01::3"), rules)) == "redirect ::1 15001: delivered here"


def test_redirect_in_prerouting_leads_to_the_primary_address_of_the_interface() -> None:
    rules = table(chain("in", nat(Hook.PREROUTING), (redirect(15006),)))
    assert said(explained(arriving(), rules)) == "redirect 10.0.0.5 15006: delivered here"
    assert said(explained(arriving("10.2.2.2", by="net1"), rules)) == "redirect 10.9.0.5 15006: delivered here"
    assert said(explained(arriving("fd00::5"), rules)) == "redirect fd00::5 15006: delivered here"
    assert said(explained(arriving("fe80::5"), rules)) == "redirect fe80::5 15006: delivered here"


def test_redirect_on_an_interface_without_an_address_drops() -> None:
    rules = table(chain("in", nat(Hook.PREROUTING), (redirect(15006),)))
    pod = Pod(addressed={"eth0": ("fd00::5",)})
    assert said(explained(arriving(), rules, pod=pod)) == "drop"


def test_redirect_without_a_port_keeps_the_port() -> None:
    found = explained(sent(), table(chain("out", nat(Hook.OUTPUT), (redirect(),))))
    assert (said(found), found.outcome.port) == ("redirect 127.0.0.1: delivered here", None)


def test_redirect_of_what_has_no_ports_changes_the_address_alone() -> None:
    rules = table(
        chain("out", nat(Hook.OUTPUT), (redirect(15001),)), chain("in", filters(Hook.INPUT), (port(15001), DROP))
    )
    assert explained(sent(port=None, protocol=ICMP, icmp_type=8), rules).outcome.fate is Fate.REDIRECT


# ── Who is asked ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_first_nat_chain_that_translates_is_the_last_that_is_asked() -> None:
    first = chain("first", nat(Hook.OUTPUT, -101), (redirect(1),))
    second = chain("second", nat(Hook.OUTPUT, -99), (redirect(2),))
    found = explained(sent(), table(second, first))
    assert (said(found), met(found)) == ("redirect 127.0.0.1 1: delivered here", ["first 1"])


def test_accept_in_a_nat_chain_lets_the_next_one_translate() -> None:
    first = chain("first", nat(Hook.OUTPUT, -101), (ACCEPT,))
    second = chain("second", nat(Hook.OUTPUT, -99), (redirect(2),))
    assert said(explained(sent(), table(first, second))) == "redirect 127.0.0.1 2: delivered here"


def test_nat_stands_at_its_own_priority_whatever_its_chains_say() -> None:
    """A filter chain at -101 sees the packet as it was sent, one at -99 as translated, though NAT's chain is at 300."""
    rules = table(
        chain("before", filters(Hook.OUTPUT, -101), (port(15001), DROP)),
        chain("nat", nat(Hook.OUTPUT, 300), (redirect(15001),)),
        chain("behind", filters(Hook.OUTPUT, -99), (port(15001), DROP)),
    )
    found = explained(sent(), rules)
    assert (said(found), met(found)) == ("drop", ["before 1", "before policy", "nat 1", "behind 1"])


def test_what_output_did_not_decide_is_not_decided_again_over_lo() -> None:
    rules = table(
        chain("out", nat(Hook.OUTPUT), (port(443), redirect(15001))),
        chain("in", nat(Hook.PREROUTING), (redirect(15006),)),
    )
    assert said(explained(sent("10.0.0.5"), rules)) == "accept: delivered here"
    assert said(explained(arriving(), rules)) == "redirect 10.0.0.5 15006: delivered here"


def test_a_nat_chain_in_prerouting_alone_is_not_asked_over_lo_either() -> None:
    """All four hooks work as soon as there is one chain, and output has decided that nothing changes."""
    rules = table(chain("in", nat(Hook.PREROUTING), (redirect(15006),)))
    assert said(explained(sent("10.0.0.5"), rules)) == "accept: delivered here"


@pytest.mark.parametrize("state", [ConntrackState.ESTABLISHED, ConntrackState.INVALID, ConntrackState.UNTRACKED])
def test_nat_is_asked_for_new_connections_alone(state: ConntrackState) -> None:
    rules = table(chain("out", nat(Hook.OUTPUT), (redirect(15001),)))
    assert said(explained(sent(state=state), rules)) == "accept: leaves by eth0"


def test_of_an_established_packet_it_is_said_that_its_translation_holds() -> None:
    rules = table(chain("out", nat(Hook.OUTPUT), (redirect(15001),)))
    found = explained(sent(state=ConntrackState.ESTABLISHED), rules)
    assert "conntrack: established; NAT rules are not asked, the connection's translation holds" in passages(found)


def test_the_translation_of_an_established_connection_is_looked_up() -> None:
    rules = table(
        chain("out", nat(Hook.OUTPUT), (DROP,)), chain("in", filters(Hook.INPUT), (port(15001), ACCEPT), (DROP,))
    )
    led = Connection(ip_address("10.0.0.5"), 40_000, ip_address("127.0.0.1"), 15_001)
    pod = Pod(connections={("10.1.2.3:80", 0): led})
    found = explained(sent(state=ConntrackState.ESTABLISHED), rules, pod=pod)
    assert said(found) == "redirect 127.0.0.1 15001: delivered here"
    assert "conntrack: its connection was translated (redirect) to 127.0.0.1:15001" in passages(found)


def test_an_answer_is_led_back_to_who_asked() -> None:
    rules = table(chain("post", nat(Hook.POSTROUTING, 100), (DROP,)))
    back = Connection(ip_address("10.1.2.3"), 40_000, ip_address("10.9.0.77"), 5, answers=True)
    pod = Pod(connections={("10.0.0.5:80", 0): back})
    found = explained(arriving(state=ConntrackState.ESTABLISHED), rules, pod=pod)
    assert said(found) == "dnat 10.9.0.77 5: leaves by net1"
    assert "conntrack: an answer: led back to 10.9.0.77:5" in passages(found)


def test_of_an_established_source_nat_the_source_is_looked_up() -> None:
    rules = table(chain("post", nat(Hook.POSTROUTING, 100), (DROP,)))
    led = Connection(ip_address("192.0.2.9"), 6, ip_address("10.1.2.3"), 80)
    found = explained(sent(state=ConntrackState.ESTABLISHED), rules, pod=Pod(connections={("10.1.2.3:80", 0): led}))
    assert said(found) == "accept: leaves by eth0, source becomes 192.0.2.9:6"


def test_what_is_not_tracked_is_not_translated() -> None:
    rules = table(
        chain("raw", filters(Hook.OUTPUT, -300), (Notrack(),)), chain("out", nat(Hook.OUTPUT), (redirect(15001),))
    )
    assert said(explained(sent(), rules)) == "accept: leaves by eth0"


def test_drop_in_a_nat_chain_drops() -> None:
    assert said(explained(sent(), table(chain("out", nat(Hook.OUTPUT), (DROP,))))) == "drop"


# ── What it changes ────────────────────────────────────────────────────────────────────────────────────────────────
def test_dnat_changes_what_later_hooks_read_and_conntrack_keeps_the_original() -> None:
    rules = table(
        chain("in", nat(Hook.PREROUTING), (dnat("10.9.0.77", 8080),)),
        chain(
            "through",
            filters(Hook.FORWARD),
            (equal(Field.TCP_DPORT, 8080), equal(Field.CT_ORIGINAL_DPORT, 80), equal(Field.OIFNAME, "net1"), DROP),
        ),
    )
    assert said(explained(arriving(), rules)) == "drop"


def test_dnat_of_a_local_packet_is_routed_again() -> None:
    rules = table(chain("out", nat(Hook.OUTPUT), (dnat("10.9.0.77", 8080),)))
    found = explained(sent(), rules)
    assert said(found) == "dnat 10.9.0.77 8080: leaves by net1"
    assert passages(found)[-1] == "routed again: by net1"


def test_the_rest_of_the_output_hook_still_sees_the_first_interface() -> None:
    """struct nf_hook_state is made once; tried on 6.18."""
    rules = table(
        chain("nat", nat(Hook.OUTPUT), (redirect(15001),)),
        chain("out", filters(Hook.OUTPUT), (equal(Field.OIFNAME, "lo"), DROP)),
        chain("post", filters(Hook.POSTROUTING), (equal(Field.OIFNAME, "eth0"), DROP)),
    )
    assert said(explained(sent(), rules)) == "redirect 127.0.0.1 15001: delivered here"


def test_a_dnat_that_leads_nowhere_drops() -> None:
    from agent.explain.surroundings import Route, RouteKind

    rules = table(chain("out", nat(Hook.OUTPUT), (dnat("192.0.2.9"),)))
    pod = Pod(routes={"192.0.2.9": Route(RouteKind.NONE)})
    assert said(explained(sent(), rules, pod=pod)) == "drop: no route to 192.0.2.9"


def test_ct_status_tells_who_was_translated_and_where() -> None:
    status = Match(Read(Field.CT_STATUS), Op.ANY_BIT, Constant(32))
    rules = table(
        chain("nat", nat(Hook.OUTPUT), (port(80), redirect(15001))), chain("out", filters(Hook.OUTPUT), (status, DROP))
    )
    assert said(explained(sent(port=80), rules)) == "drop"
    assert said(explained(sent(port=443), rules)) == "accept: leaves by eth0"


def test_a_translation_to_itself_is_none_to_conntrack() -> None:
    status = Match(Read(Field.CT_STATUS), Op.ANY_BIT, Constant(32))
    rules = table(chain("nat", nat(Hook.OUTPUT), (redirect(80),)), chain("out", filters(Hook.OUTPUT), (status, DROP)))
    assert said(explained(sent("127.0.0.1"), rules)) == "redirect 127.0.0.1 80: delivered here"


# ── Maps ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_redirect_by_a_map_of_ports_and_what_the_map_has_not_goes_on() -> None:
    ports = Looked(Read(Field.TCP_DPORT), Elements("m", exact={(80,): Constant(15001)}))
    rules = table(chain("out", nat(Hook.OUTPUT), (Nat(NatKind.REDIRECT, None, ports),), (dnat("10.9.0.9"),)))
    assert said(explained(sent(port=80), rules)) == "redirect 127.0.0.1 15001: delivered here"
    assert said(explained(sent(port=81), rules)) == "dnat 10.9.0.9: leaves by net1"


def test_a_map_by_chance_leads_to_each_of_its_elements_address_with_its_port() -> None:
    key = Opaque("numgen inc mod 2", "a count of packets decides")
    addresses = Elements(exact={(0,): Constant(0x0A090001), (1,): Constant(0x0A090002)})
    ports = Elements(exact={(0,): Constant(81), (1,): Constant(82)})
    both = Nat(NatKind.DNAT, Looked(key, addresses), Looked(key, ports))
    found = explained(sent(), table(chain("out", nat(Hook.OUTPUT), (both,))))
    assert possible(found) == {"dnat 10.9.0.1 81", "dnat 10.9.0.2 82"}


def test_of_a_range_the_first_is_told_and_that_there_are_more() -> None:
    ranged = Nat(NatKind.DNAT, Constant(0x0A090001), None, ranged=True)
    found = explained(sent(), table(chain("out", nat(Hook.OUTPUT), (ranged,))))
    assert said(found) == "dnat 10.9.0.1: leaves by net1"
    assert found.doubts[0].why == "it takes one of a range; the first is told"


def test_an_address_that_nobody_can_tell_is_not_guessed() -> None:
    hidden = Nat(NatKind.DNAT, Opaque("jhash ip saddr mod 4 map @m", "a hash decides"))
    found = explained(sent(), table(chain("out", nat(Hook.OUTPUT), (hidden,))))
    assert (found.outcome.fate, found.outcome.address) == (Fate.DNAT, None)
    assert "where to cannot be told" in found.outcome.note
    assert found.doubts[0].why == "a hash decides"


# ── Sources ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_masquerade_takes_the_address_of_the_interface_it_leaves_by() -> None:
    rules = saved("nat", "-A POSTROUTING -o net1 -j MASQUERADE")
    assert said(explained(arriving("10.9.0.77"), *rules)) == "accept: leaves by net1, source becomes 10.9.0.5"


def test_of_several_addresses_masquerade_may_take_any() -> None:
    rules = saved("nat", "-A POSTROUTING -j MASQUERADE")
    pod = Pod(addressed={"eth0": ("10.0.0.5", "10.0.7.5")})
    assert said(explained(sent(), *rules, pod=pod)) == "accept: leaves by eth0, source becomes ?"


def test_over_lo_masquerade_takes_an_address_that_nobody_tells_and_may_change_nothing() -> None:
    """inet_select_addr (net/ipv4/devinet.c) takes another interface's, which may be the sender's."""
    status = Match(Read(Field.CT_STATUS), Op.ANY_BIT, Constant(16))
    rules = table(chain("in", filters(Hook.INPUT), (status, DROP)))
    found = explained(sent("10.0.0.5"), *saved("nat", "-A POSTROUTING -j MASQUERADE"), rules)
    assert possible(found) == {"accept", "drop"}


def test_snat_in_input_changes_whom_the_application_sees() -> None:
    rules = saved("nat", "-A INPUT -p tcp -j SNAT --to-source 10.0.0.9:7")
    assert said(explained(arriving(), *rules)) == "accept: delivered here, source becomes 10.0.0.9:7"
    assert said(explained(arriving(protocol=UDP), *rules)) == "accept: delivered here"


def test_the_source_is_decided_once_too() -> None:
    rules = saved("nat", "-A POSTROUTING -j RETURN", "-A INPUT -j SNAT --to-source 10.0.0.9")
    assert said(explained(sent("10.0.0.5"), *rules)) == "accept: delivered here"
