"""Marks, conntrack's place and transparent proxies: what a rule leaves for a later one, and for the routes."""

from agent.explain.outcome import Fate
from agent.explain.packet import ConntrackState, Sender
from agent.explain.statements import (
    ACCEPT,
    DROP,
    Bits,
    Constant,
    Field,
    Match,
    Notrack,
    Op,
    Read,
    Set,
    Statement,
    Tproxy,
    Xored,
)
from agent.explain.surroundings import Socket
from agent.explain.tables import Base, ChainType, Hook
from tests.unit.agent.explain.pod import (
    Pod,
    arriving,
    chain,
    equal,
    explained,
    filters,
    mark,
    met,
    passages,
    port,
    possible,
    said,
    saved,
    sent,
    table,
    unequal,
)

ROUTE = Base(ChainType.ROUTE, Hook.OUTPUT, -150)
RAW = filters(Hook.PREROUTING, -300)
LISTENING = {15006: Socket(transparent=True)}


# ── Marks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_changed_mark_is_routed_again_in_a_chain_of_type_route_alone() -> None:
    assert said(explained(sent(), table(chain("out", ROUTE, (mark(0x111),))))) == "accept: delivered here"
    assert (
        said(explained(sent(), table(chain("out", filters(Hook.OUTPUT), (mark(0x111),))))) == "accept: leaves by eth0"
    )


def test_iptables_mangle_output_routes_again() -> None:
    rules = saved("mangle", "-A OUTPUT -j MARK --set-xmark 0x111/0xfff")
    found = explained(sent(), *rules)
    assert said(found) == "accept: delivered here"
    assert "routed again: to this host" in passages(found)


def test_the_mark_of_the_socket_routes_the_first_time() -> None:
    assert said(explained(sent(mark=0x111))) == "accept: delivered here"


def test_the_mark_stays_over_lo_and_the_sender_does_not() -> None:
    rules = table(
        chain("out", filters(Hook.OUTPUT), (equal(Field.UID, 1000), mark(0x7))),
        chain("in", filters(Hook.INPUT), (equal(Field.UID, 1000), ACCEPT), (equal(Field.MARK, 0x7), DROP)),
    )
    assert said(explained(sent("10.0.0.5"), rules)) == "drop"


def test_a_mark_is_set_though_a_later_test_of_its_rule_does_not_hold() -> None:
    rules = table(chain("out", filters(Hook.OUTPUT), (mark(0x7), port(443), ACCEPT), (equal(Field.MARK, 0x7), DROP)))
    found = explained(sent(), rules)
    assert said(found) == "drop"


def test_parts_of_a_mark() -> None:
    part = Set(Field.MARK, Bits(Read(Field.MARK), 0xFFFFF000, 0, 0x539))
    rules = table(chain("out", filters(Hook.OUTPUT), (part,), (equal(Field.MARK, 0x7539), DROP)))
    assert said(explained(sent(mark=0x7001), rules)) == "drop"


def test_the_mark_of_the_connection_is_kept_and_given_back() -> None:
    rules = saved(
        "mangle",
        "-A OUTPUT -m mark --mark 0x539 -j CONNMARK --save-mark",
        "-A OUTPUT -j MARK --set-mark 0x1",
        "-A INPUT -j CONNMARK --restore-mark",
        "-A INPUT -m mark --mark 0x539 -j DROP",
    )
    assert said(explained(sent("10.0.0.5", mark=0x539), *rules)) == "drop"
    assert said(explained(sent("10.0.0.5", mark=0x538), *rules)) == "accept: delivered here"


def test_two_values_laid_over_each_other() -> None:
    both = Set(Field.CT_MARK, Xored(Bits(Read(Field.CT_MARK), 0xFFFFFF00), Bits(Read(Field.MARK), 0xFF)))
    rules = table(chain("out", filters(Hook.OUTPUT), (both,), (equal(Field.CT_MARK, 0x39), DROP)))
    assert said(explained(sent(mark=0x539), rules)) == "drop"


def test_a_new_connection_has_no_mark_and_an_old_ones_is_not_known() -> None:
    rules = table(chain("out", filters(Hook.OUTPUT), (equal(Field.CT_MARK, 0x111), DROP)))
    assert said(explained(sent(), rules)) == "accept: leaves by eth0"
    assert possible(explained(sent(state=ConntrackState.ESTABLISHED), rules)) == {"accept", "drop"}


# ── Conntrack's place ──────────────────────────────────────────────────────────────────────────────────────────────
def test_before_conntrack_the_state_is_invalid_and_there_is_no_connection() -> None:
    early, late = filters(Hook.OUTPUT, -300), filters(Hook.OUTPUT, -199)
    assert said(explained(sent(), table(chain("raw", early, (equal(Field.CT_STATE, 1), DROP))))) == "drop"
    assert said(explained(sent(), table(chain("raw", early, (unequal(Field.CT_MARK, 5), DROP))))).startswith("accept")
    assert said(explained(sent(), table(chain("out", late, (equal(Field.CT_STATE, 8), DROP))))) == "drop"
    assert said(explained(sent(), table(chain("out", late, (unequal(Field.CT_MARK, 5), DROP))))) == "drop"


def test_over_lo_the_connection_is_known_before_conntrack() -> None:
    rules = table(chain("raw", RAW, (equal(Field.CT_STATE, 8), DROP)))
    assert said(explained(sent("10.0.0.5"), rules)) == "drop"
    assert said(explained(arriving(), rules)) == "accept: delivered here"


def test_notrack_in_raw_is_untracked_and_over_lo_too_late() -> None:
    untracked = chain("in", filters(Hook.INPUT), (equal(Field.CT_STATE, 64), DROP))
    assert said(explained(arriving(), table(chain("raw", RAW, (Notrack(),)), untracked))) == "drop"
    assert said(explained(sent("10.0.0.5"), table(chain("raw", RAW, (Notrack(),)), untracked))).startswith("accept")


def test_notrack_behind_conntrack_does_nothing() -> None:
    late = chain("late", filters(Hook.PREROUTING, -150), (Notrack(),))
    rules = table(late, chain("in", filters(Hook.INPUT), (equal(Field.CT_STATE, 8), DROP)))
    assert said(explained(arriving(), rules)) == "drop"


def zone(number: int) -> Set:
    return Set(Field.CT_ZONE, Constant(number))


def test_a_zone_is_read_by_later_rules() -> None:
    rules = table(
        chain("raw", RAW, (port(80), zone(3))), chain("in", filters(Hook.INPUT), (equal(Field.CT_ZONE, 3), DROP))
    )
    assert said(explained(arriving(), rules)) == "drop"
    assert said(explained(arriving(port=81), rules)) == "accept: delivered here"


def test_before_conntrack_a_zone_makes_the_state_new_and_is_not_read_yet() -> None:
    """Tried on 6.18."""
    for asked, drops in ((equal(Field.CT_STATE, 8), True), (equal(Field.CT_ZONE, 3), False)):
        rules = table(chain("raw", RAW, (zone(3),), (asked, DROP)))
        assert (explained(arriving(), rules).outcome.fate is Fate.DROP) is drops


def test_iptables_takes_a_zones_template_for_a_connection() -> None:
    zoned = "-A PREROUTING -j CT --zone 3"
    found = explained(arriving(), *saved("raw", zoned, "-A PREROUTING -m conntrack --ctdir ORIGINAL -j DROP"))
    assert said(found) == "drop"
    found = explained(arriving(), *saved("raw", zoned, "-A PREROUTING -m connmark --mark 0x1 -j DROP"))
    assert said(found) == "accept: delivered here"


def test_nfts_zone_undoes_an_earlier_notrack_and_iptables_does_not() -> None:
    """nft_ct.c: nft_ct_set_zone_eval looks for a connection, xt_CT.c for anything; tried on 6.18."""
    tracked = table(
        chain("raw", RAW, (Notrack(),), (zone(2),)),
        chain("in", filters(Hook.INPUT), (equal(Field.CT_STATE, 8), DROP)),
    )
    assert said(explained(arriving(), tracked)) == "drop"
    rules = saved("raw", "-A PREROUTING -j CT --notrack", "-A PREROUTING -j CT --zone 2")
    untracked = saved("filter", "-A INPUT -m conntrack --ctstate UNTRACKED -j DROP")
    assert said(explained(arriving(), *rules, *untracked)) == "drop"


# ── Transparent proxies ────────────────────────────────────────────────────────────────────────────────────────────
def divert(*before: Statement, ends: bool = False) -> tuple[Statement, ...]:
    return (*before, Tproxy(None, Constant(15006), ends))


MANGLE = filters(Hook.PREROUTING, -150)


def test_tproxy_to_an_address_of_the_pod_is_delivered_to_the_proxy() -> None:
    found = explained(arriving(), table(chain("in", MANGLE, divert())), pod=Pod(LISTENING))
    assert said(found) == "tproxy 15006: delivered here"


def test_tproxy_of_what_is_for_others_needs_a_local_route_for_its_mark() -> None:
    marked = table(chain("in", MANGLE, divert(mark(0x111))))
    assert said(explained(arriving("10.9.0.77"), marked, pod=Pod(LISTENING))) == "tproxy 15006: delivered here"
    unmarked = explained(arriving("10.9.0.77"), table(chain("in", MANGLE, divert())), pod=Pod(LISTENING))
    assert unmarked.outcome.fate is Fate.DROP
    assert unmarked.outcome.note == (
        "tproxy gave it a socket, and it is routed elsewhere: there is no local route for mark 0x0",
    )


def test_nfts_tproxy_goes_on_with_the_rule() -> None:
    found = explained(arriving(), table(chain("in", MANGLE, (*divert(), DROP))), pod=Pod(LISTENING))
    assert said(found) == "drop"


def test_without_a_listener_nfts_rule_ends_and_iptables_drops() -> None:
    """nft_tproxy.c: NFT_BREAK; xt_TPROXY.c: NF_DROP."""
    found = explained(arriving(), table(chain("in", MANGLE, (*divert(), DROP), (ACCEPT,))))
    assert (said(found), met(found)) == ("accept: delivered here", ["in 1", "in 2"])
    rules = saved("mangle", "-A PREROUTING -p tcp -j TPROXY --on-port 15006 --tproxy-mark 0x1/0x1")
    assert said(explained(arriving(), *rules)) == "drop"


def test_a_listener_that_is_not_transparent_is_none() -> None:
    found = explained(arriving(), table(chain("in", MANGLE, (*divert(), DROP))), pod=Pod({15006: Socket()}))
    assert said(found) == "accept: delivered here"


def test_a_listener_that_nobody_tells_of_is_followed_both_ways() -> None:
    found = explained(arriving(), *saved("mangle", "-A PREROUTING -p tcp -j TPROXY --on-port 9"), pod=Pod(blind=True))
    assert possible(found) >= {"tproxy 9", "drop"}


def test_a_socket_that_is_transparent_is_diverted() -> None:
    transparent = Match(Read(Field.SOCKET_TRANSPARENT), Op.EQUAL, Constant(1))
    rules = table(chain("in", MANGLE, (transparent, DROP)))
    assert said(explained(arriving(port=15006), rules, pod=Pod(LISTENING))) == "drop"
    assert said(explained(arriving(port=80), rules, pod=Pod(LISTENING))) == "accept: delivered here"


def test_over_lo_the_way_back_is_asked_of_what_has_a_socket_already() -> None:
    """nft_fib.h: nft_fib_can_skip; the sender's address is one of the host's, to which no route leads back by lo."""
    asks = (equal(Field.SOURCE_FIB_OIF, 0), DROP)
    assert said(explained(sent("10.0.0.5"), table(chain("in", MANGLE, asks)))) == "accept: delivered here"
    assert said(explained(sent("10.0.0.5"), table(chain("in", MANGLE, divert(), asks)), pod=Pod(LISTENING))) == "drop"


def test_over_lo_the_route_stays_whatever_the_mark_becomes() -> None:
    rules = table(chain("in", MANGLE, (mark(0x7),)))
    pod = Pod()
    assert said(explained(sent("10.0.0.5", sender=Sender()), rules, pod=pod)) == "accept: delivered here"
    assert all(asked.arrives_on is None for asked in pod.asked)
