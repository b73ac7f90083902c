"""What is not known is followed both ways, asked once, and bounded; and routes, which decide as rules do."""

from ipaddress import ip_address

import pytest

from agent.explain.choices import LARGEST_WAYS
from agent.explain.outcome import Fate, Result, Step
from agent.explain.packet import ConntrackState, Sender
from agent.explain.statements import (
    ACCEPT,
    DROP,
    AnyOf,
    Bits,
    Constant,
    Elements,
    Field,
    Match,
    NoEffect,
    Notrack,
    Op,
    Opaque,
    Perhaps,
    Read,
    Set,
)
from agent.explain.surroundings import Route, RouteKind
from agent.explain.tables import Base, ChainType, Hook
from tests.unit.agent.explain.pod import (
    Pod,
    arriving,
    chain,
    equal,
    explained,
    filters,
    jump,
    mark,
    met,
    nat,
    passages,
    possible,
    redirect,
    said,
    saved,
    sent,
    table,
)

OUT = filters(Hook.OUTPUT)
LIMIT = Perhaps(Opaque("limit rate 1/second", "how many packets came before decides"))
SOMEBODY = Sender()


# ── Both ways ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_test_that_chance_decides_leads_both_ways() -> None:
    found = explained(sent(), table(chain("out", OUT, (LIMIT, DROP))))
    assert (found.outcome.fate, possible(found)) == (Fate.UNKNOWN, {"accept", "drop"})
    doubt = found.doubts[0]
    assert (doubt.chain, doubt.text, doubt.why) == (
        "out",
        "limit rate 1/second",
        "how many packets came before decides",
    )


def test_each_outcome_has_the_path_that_leads_there() -> None:
    found = explained(sent(), table(chain("out", OUT, (LIMIT, DROP), (ACCEPT,))))
    by_fate = {outcome.fate: [step.what for step in path if isinstance(step, Step)] for outcome, path in found.either}
    assert by_fate == {Fate.DROP: ["if it does, drop"], Fate.ACCEPT: ["if it does not", "accept"]}
    assert found.path == found.either[0][1]


def test_outcomes_that_agree_are_certain() -> None:
    found = explained(sent(), table(chain("out", OUT, (LIMIT, DROP), (DROP,))))
    assert (said(found), found.either, len(found.doubts)) == ("drop", (), 1)


def test_nothing_hangs_on_a_doubtful_rule_that_only_counts() -> None:
    found = explained(sent(), table(chain("out", OUT, (LIMIT, NoEffect("log")), (DROP,))))
    assert (said(found), found.doubts) == ("drop", ())
    assert [step.result for step in found.path if isinstance(step, Step)] == [Result.PERHAPS, Result.DECIDED]


def test_an_unknown_user_is_the_same_user_in_every_rule() -> None:
    """Two rules about one user: not four outcomes but two."""
    rules = table(
        chain("nat", nat(Hook.OUTPUT), (equal(Field.UID, 1337), ACCEPT), (redirect(15001),)),
        chain("out", OUT, (equal(Field.UID, 1337), ACCEPT), (equal(Field.UID, 5), DROP), (DROP,)),
    )
    found = explained(sent(sender=SOMEBODY), rules)
    assert possible(found) == {"accept", "drop"}
    accepted = next(path for outcome, path in found.either if outcome.fate is Fate.ACCEPT)
    assert [step.what for step in accepted if isinstance(step, Step)] == ["if it does, accept", "accept"]


def test_a_user_that_is_told_is_no_doubt() -> None:
    rules = table(chain("out", OUT, (equal(Field.UID, 1337), DROP)))
    assert said(explained(sent(sender=Sender(1337, 0)), rules)) == "drop"
    assert said(explained(sent(sender=Sender(1000, 0)), rules)) == "accept: leaves by eth0"
    assert said(explained(sent(sender=None), rules)) == "accept: leaves by eth0"


def test_that_there_is_a_socket_is_certain_whosever_it_is() -> None:
    rules = saved("filter", "-A OUTPUT -m owner --socket-exists -j DROP")
    assert said(explained(sent(sender=SOMEBODY), *rules)) == "drop"
    assert said(explained(sent(sender=None), *rules)) == "accept: leaves by eth0"


def test_bits_of_an_unknown_value_are_another_unknown() -> None:
    """To have seen that the connection's mark is not 5 says nothing of its low bits."""
    low = Match(Bits(Read(Field.CT_MARK), 0xFF), Op.EQUAL, Constant(1))
    rules = table(chain("out", OUT, (equal(Field.CT_MARK, 0x101), low, DROP), (low, ACCEPT), (DROP,)))
    found = explained(sent(state=ConntrackState.ESTABLISHED), rules)
    assert possible(found) == {"accept", "drop"}


def test_one_of_several_unknown_tests_is_asked_once() -> None:
    either = AnyOf((equal(Field.TH_SPORT, 1), equal(Field.TH_DPORT, 1)))
    rules = table(chain("out", OUT, (either, mark(1)), (either, DROP)))
    found = explained(sent(source_port=None), rules)
    assert possible(found) == {"accept", "drop"}
    assert len(found.either) == 2


def test_twenty_doubtful_rules_are_twenty_one_ways_not_a_million() -> None:
    found = explained(sent(), table(chain("out", OUT, *[(LIMIT, mark(1))] * 20, (DROP,))))
    assert said(found) == "drop"


def test_more_ways_than_are_followed_are_told_and_nothing_is_claimed() -> None:
    doubling = [(LIMIT, Set(Field.MARK, Bits(Read(Field.MARK), ~(1 << bit), 0, 1 << bit))) for bit in range(12)]
    parted = [(equal(Field.MARK, number), DROP) for number in range(LARGEST_WAYS)]
    found = explained(sent(), table(chain("out", OUT, *doubling, *parted)))
    assert found.outcome.fate is Fate.UNKNOWN
    assert found.outcome.note == ("more than 64 ways: not all were followed",)


def test_a_hostile_ruleset_of_doubtful_rules_is_given_up_in_bounded_time_and_memory() -> None:
    rules = [(LIMIT, Set(Field.MARK, Bits(Read(Field.MARK), 0xFFFFFFFF, number))) for number in range(20_000)]
    found = explained(sent(), table(chain("out", OUT, *rules)))
    assert found.outcome.fate is Fate.UNKNOWN
    assert len(found.path) < 10_000


def test_jumps_that_fan_out_are_given_up() -> None:
    """Sixteen chains, each of which jumps to the next one ten times: ten to the sixteenth."""
    fan = [chain(f"c{depth}", None, *[(jump(f"c{depth + 1}"),)] * 10) for depth in range(16)]
    found = explained(sent(), table(chain("out", OUT, (jump("c0"),)), *fan, chain("c16", None, (mark(1),))))
    assert found.outcome.fate is Fate.UNKNOWN


def test_a_set_that_this_packet_may_have_been_added_to() -> None:
    knocked = Elements("knocked", changing=True)
    knock = (NoEffect('{"set": {"op": "add", "set": "@knocked"}}'),)
    asks = (Match(Read(Field.IP_DESTINATION), Op.EQUAL, knocked), DROP)
    assert possible(explained(sent(), table(chain("out", OUT, knock, asks)))) == {"accept", "drop"}
    assert said(explained(sent(), table(chain("out", OUT, asks)))) == "accept: leaves by eth0"


def test_nobody_asks_about_fragments() -> None:
    rules = table(chain("out", OUT, (Match(Bits(Read(Field.IP_FRAG_OFF), 0x1FFF), Op.UNEQUAL, Constant(0)), DROP)))
    assert said(explained(sent(), rules)) == "accept: leaves by eth0"
    assert said(explained(sent("fd01::3"), rules)) == "accept: leaves by eth0"


# ── Routes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_without_a_route_no_rule_is_asked() -> None:
    pod = Pod(routes={"192.0.2.1": Route(RouteKind.NONE)})
    found = explained(sent("192.0.2.1"), table(chain("out", OUT, (ACCEPT,))), pod=pod)
    assert said(found) == "drop: no route: the sender is told, no rule is asked"
    assert met(found) == []


def test_a_source_that_must_not_come_from_there_is_dropped_behind_prerouting() -> None:
    pod = Pod(routes={"10.0.0.5": Route(RouteKind.REFUSED)})
    rules = table(chain("pre", filters(Hook.PREROUTING), (mark(1),)), chain("in", filters(Hook.INPUT), (ACCEPT,)))
    found = explained(arriving(), rules, pod=pod)
    assert said(found) == "drop: its source must not come from there (rp_filter, martian)"
    assert met(found) == ["pre 1", "pre policy"]
    assert pod.asked[-1].mark == 1


def test_loopbacks_ipv6_address_from_outside_is_dropped_before_any_rule() -> None:
    rules = table(chain("pre", filters(Hook.PREROUTING), (ACCEPT,)))
    found = explained(arriving("::1"), rules)
    assert (said(found), met(found)) == ("drop: the kernel takes ::1 from lo alone", [])


def test_a_route_that_nobody_tells_is_followed_both_ways() -> None:
    rules = saved("filter", "-A OUTPUT -o lo -j DROP")
    assert possible(explained(sent(), *rules, pod=Pod(blind=True))) == {"accept", "drop"}
    assert said(explained(sent("127.0.0.1"), *rules, pod=Pod(blind=True))) == "drop"


@pytest.mark.parametrize(("to", "drops"), [("10.0.0.5", True), ("10.1.2.3", False), ("224.0.0.1", False)])
def test_the_type_of_an_address(to: str, drops: bool) -> None:
    pod = Pod(routes={"224.0.0.1": Route(RouteKind.MULTICAST, "eth0", ip_address("10.0.0.5"))})
    rules = table(chain("out", OUT, (equal(Field.DESTINATION_TYPE, 2), DROP)))
    assert (explained(sent(to), rules, pod=pod).outcome.fate is Fate.DROP) is drops


def test_a_local_route_by_mark_makes_no_address_local() -> None:
    """Types are of the local table alone (fib_frontend.c: inet_dev_addr_type)."""
    route = Base(ChainType.ROUTE, Hook.OUTPUT, -150)
    rules = table(
        chain("r", route, (mark(0x111),)), chain("in", filters(Hook.INPUT), (equal(Field.DESTINATION_TYPE, 2), DROP))
    )
    assert said(explained(sent(), rules)) == "accept: delivered here"


def test_another_interfaces_address_is_local_but_not_on_this_one() -> None:
    here = table(chain("pre", filters(Hook.PREROUTING), (equal(Field.DESTINATION_TYPE_IIF, 2), DROP)))
    assert said(explained(arriving("10.0.0.5"), here)) == "drop"
    assert said(explained(arriving("10.9.0.5"), here)) == "accept: delivered here"


def test_the_way_back() -> None:
    rules = table(chain("pre", filters(Hook.PREROUTING), (equal(Field.SOURCE_FIB_OIF, 0), DROP)))
    assert said(explained(arriving(), rules)) == "accept: delivered here"
    assert said(explained(arriving("10.9.0.5", by="net1"), rules)) == "drop"


def test_the_way_back_by_the_packets_mark() -> None:
    by_mark = table(chain("pre", filters(Hook.PREROUTING), (mark(0x111),), (equal(Field.SOURCE_FIB_OIF_MARK, 0), DROP)))
    without = table(chain("pre", filters(Hook.PREROUTING), (mark(0x111),), (equal(Field.SOURCE_FIB_OIF, 0), DROP)))
    assert said(explained(arriving(), by_mark)) == "drop"
    assert said(explained(arriving(), without)) == "accept: delivered here"


def test_a_translation_over_lo_is_routed_anew_and_loopbacks_address_refused() -> None:
    """Not tracked on its way out, tracked when it comes in: prerouting redirects to 127.0.0.1, which only a packet that
    kept its route may have (net/ipv4/route.c: martian_destination); tried on 6.18."""
    rules = table(
        chain("raw", filters(Hook.OUTPUT, -300), (Notrack(),)),
        chain("raw_in", filters(Hook.PREROUTING, -300), (Set(Field.CT_ZONE, Constant(1)),)),
        chain("nat", nat(Hook.PREROUTING), (redirect(15001),)),
    )
    pod = Pod(routes={"127.0.0.1": Route(RouteKind.REFUSED)})
    assert said(explained(sent("10.0.0.5"), rules, pod=pod)).startswith("drop: its source must not come from there")
    assert pod.asked[-1].arrives_on == "lo"


def test_the_source_is_the_kernels_choice_unless_it_is_told() -> None:
    rules = saved("filter", "-A OUTPUT -s 10.9.0.5 -j DROP")
    assert said(explained(sent("10.9.0.77"), *rules)) == "drop"
    assert said(explained(sent("10.9.0.77", source=ip_address("10.0.0.5")), *rules)) == "accept: leaves by net1"
    assert "routed: by net1" in passages(explained(sent("10.9.0.77"), *rules))
