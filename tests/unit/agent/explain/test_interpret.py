"""Hooks, base chains and verdicts: who is asked, in which order, and what ends what."""

from collections.abc import Sequence

import pytest

from agent.explain.outcome import Fate, Result, Step
from agent.explain.packet import ACK, SYN, TCP, UDP, ConntrackState
from agent.explain.statements import (
    ACCEPT,
    DROP,
    Constant,
    Decision,
    Elements,
    Field,
    Match,
    NoEffect,
    Op,
    Opaque,
    Read,
    Reject,
    Span,
    Statement,
    Unread,
    Value,
    Verdict,
    VerdictMap,
)
from agent.explain.tables import Base, Chain, ChainType, Hook, Rule
from tests.unit.agent.explain.pod import (
    RETURN,
    arriving,
    chain,
    equal,
    explained,
    filters,
    goto,
    jump,
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

OUT = filters(Hook.OUTPUT)


def test_without_rules_everything_passes() -> None:
    assert said(explained(sent())) == "accept: leaves by eth0"
    assert said(explained(sent("10.0.0.5"))) == "accept: delivered here"
    assert said(explained(arriving())) == "accept: delivered here"
    assert said(explained(arriving("10.9.0.77"))) == "accept: leaves by net1"


def test_hooks_of_a_packet_that_is_sent_to_its_own_host() -> None:
    chains = [chain(hook.value, filters(hook)) for hook in Hook if hook not in (Hook.INGRESS, Hook.EGRESS)]
    found = explained(sent("10.0.0.5"), table(*chains))
    assert met(found) == ["output policy", "postrouting policy", "prerouting policy", "input policy"]
    assert passages(found) == [
        "routed: to this host",
        "conntrack: a new connection",
        "over lo: it comes in again, with its connection and its mark, without its sender's socket",
    ]


def test_hooks_of_a_packet_that_passes_through() -> None:
    chains = [chain(hook.value, filters(hook)) for hook in Hook if hook not in (Hook.INGRESS, Hook.EGRESS)]
    found = explained(arriving("10.9.0.77"), table(*chains))
    assert met(found) == ["prerouting policy", "forward policy", "postrouting policy"]


def test_accept_ends_one_base_chain_and_those_behind_it_still_drop() -> None:
    first = chain("first", filters(Hook.OUTPUT, -10), (ACCEPT,), (DROP,))
    second = chain("second", filters(Hook.OUTPUT, 10), (DROP,))
    found = explained(sent(), table(second, first))
    assert said(found) == "drop"
    assert met(found) == ["first 1", "second 1"]


def test_drop_is_final() -> None:
    first = chain("first", filters(Hook.OUTPUT, -10), (DROP,))
    found = explained(sent(), table(first, chain("second", OUT, (ACCEPT,))))
    assert (said(found), met(found)) == ("drop", ["first 1"])


def test_of_equal_priority_the_chain_made_later_is_asked_first() -> None:
    older = chain("older", OUT, (DROP,), handle=1)
    newer = chain("newer", OUT, (Reject("tcp reset"),), handle=2)
    assert said(explained(sent(), table(older, newer))) == "reject"


def test_between_tables_the_order_of_equals_is_not_known_and_both_are_followed() -> None:
    one = table(chain("drops", OUT, (DROP,)), name="one", handle=1)
    other = table(chain("rejects", OUT, (Reject(),)), name="other", handle=2)
    found = explained(sent(), one, other)
    assert found.outcome.fate is Fate.UNKNOWN
    assert possible(found) == {"drop", "reject"}
    assert found.doubts[0].rule is None
    assert "which is asked first" in found.doubts[0].why


def test_an_unknown_order_that_changes_nothing_is_no_doubt() -> None:
    one = table(chain("a", OUT, (port(81), DROP)), name="one")
    other = table(chain("b", OUT, (ACCEPT,)), name="other")
    found = explained(sent(), one, other)
    assert (said(found), found.doubts) == ("accept: leaves by eth0", ())


def test_a_chain_without_a_rule_beside_one_that_decides_is_no_doubt_for_it_may_be_asked_first_or_last() -> None:
    """Our own: the anchor's NAT chains beside those that redirect."""
    ours = table(chain("out", nat(Hook.OUTPUT), (redirect(15001),)), name="headgate", handle=2)
    anchor = table(chain("out", nat(Hook.OUTPUT)), name="anchor", handle=1)
    found = explained(sent(), ours, anchor)
    assert (found.outcome.fate, found.doubts, found.either) == (Fate.REDIRECT, (), ())


def test_an_empty_chain_that_drops_is_asked_like_any_other() -> None:
    drops = table(chain("out", filters(Hook.OUTPUT, drops=True)), name="drops", handle=1)
    rejects = table(chain("out", OUT, (Reject(),)), name="rejects", handle=2)
    assert possible(explained(sent(), drops, rejects)) == {"drop", "reject"}


def test_of_many_tables_of_one_priority_not_all_orders_are_followed_and_nothing_is_certain() -> None:
    """The first and the last lead to the same port, and still a third may be asked first."""
    ports = {"a": 1, "b": 2, "c": 2, "d": 2, "e": 1}
    tables = [
        table(chain("out", nat(Hook.OUTPUT), (redirect(to),)), name=name, handle=handle)
        for handle, (name, to) in enumerate(ports.items(), start=1)
    ]
    found = explained(sent(), *tables)
    assert found.outcome.fate is Fate.UNKNOWN
    assert found.outcome.note == ("many tables have one priority: not all orders were followed",)


def test_jump_comes_back_and_return_goes_on_behind_it() -> None:
    base = chain("base", OUT, (jump("sub"),), (DROP,))
    sub = chain("sub", None, (port(80), RETURN), (ACCEPT,))
    found = explained(sent(), table(base, sub))
    assert (said(found), met(found)) == ("drop", ["base 1", "sub 1", "base 2"])


def test_goto_does_not_come_back_to_the_chain_it_left() -> None:
    base = chain("base", filters(Hook.OUTPUT, drops=True), (jump("middle"),), (ACCEPT,))
    middle = chain("middle", None, (goto("last"),), (DROP,))
    last = chain("last", None, (NoEffect("counter"),))
    found = explained(sent(), table(base, middle, last))
    assert met(found) == ["base 1", "middle 1", "last 1", "base 2"]
    from_base = chain("base", filters(Hook.OUTPUT, drops=True), (goto("last"),), (ACCEPT,))
    assert said(explained(sent(), table(from_base, last))) == "drop"


def test_return_in_a_base_chain_is_its_policy() -> None:
    found = explained(sent(), table(chain("out", filters(Hook.OUTPUT, drops=True), (RETURN,), (ACCEPT,))))
    assert (said(found), met(found)) == ("drop", ["out 1", "out policy"])


def test_continue_goes_on_with_the_next_rule() -> None:
    found = explained(sent(), table(chain("out", OUT, (Verdict(Decision.CONTINUE),), (DROP,))))
    assert met(found) == ["out 1", "out 2"]


def test_a_missed_rule_says_which_statement_and_what_the_packet_has() -> None:
    found = explained(sent(), table(chain("out", OUT, (equal(Field.L4PROTO, TCP), port(443), DROP))))
    step = found.path[2]
    assert isinstance(step, Step)
    assert (step.result, step.failed, step.had) == (Result.MISSED, port(443), 80)


def test_a_dormant_tables_chains_hang_nowhere() -> None:
    asleep = table(chain("out", OUT, (DROP,)))
    dormant = type(asleep)(asleep.tool, asleep.family, asleep.name, asleep.chains, {}, dormant=True)
    assert said(explained(sent(), dormant)) == "accept: leaves by eth0"


def test_a_table_of_the_other_family_is_not_asked() -> None:
    drops = chain("out", OUT, (DROP,))
    assert said(explained(sent(), table(drops, family="ip6"))) == "accept: leaves by eth0"
    assert said(explained(sent("fd01::3"), table(drops, family="ip6"))) == "drop"
    assert said(explained(sent("fd01::3"), table(drops, family="inet"))) == "drop"


def test_ingress_of_an_interface_is_asked_first_and_of_it_alone() -> None:
    base = Base(ChainType.FILTER, Hook.INGRESS, 0, devices=("eth0",))
    ingress = table(chain("in", base, (port(80), DROP)), family="netdev")
    assert said(explained(arriving(), ingress)) == "drop"
    assert said(explained(arriving("10.9.0.5", by="net1"), ingress)) == "accept: delivered here"


def test_egress_of_an_interface_is_asked_last() -> None:
    base = Base(ChainType.FILTER, Hook.EGRESS, 0, devices=("eth0",))
    assert said(explained(sent(), table(chain("x", base, (DROP,)), family="netdev"))) == "drop"


def test_a_chain_that_is_not_entered_is_not_read() -> None:
    class Unreadable(Sequence[Rule]):
        def __len__(self) -> int:
            raise AssertionError("read")

        def __getitem__(self, index: int | slice) -> Rule:  # type: ignore[override]
            raise AssertionError("read")

    other = Chain("other", Unreadable(), filters(Hook.INPUT))
    assert said(explained(sent(), table(chain("out", OUT, (ACCEPT,)), other))) == "accept: leaves by eth0"


def test_a_jump_to_a_chain_that_is_gone_is_followed_both_ways() -> None:
    found = explained(sent(), table(chain("out", OUT, (jump("gone"),))))
    assert possible(found) == {"accept", "drop"}
    assert found.doubts[0].why == "it was gone when its chains were read"


def test_chains_that_lead_in_a_circle_end() -> None:
    """The kernel refuses them; a ruleset that changes while it is read may look so."""
    found = explained(sent(), table(chain("out", OUT, (goto("a"),)), chain("a", None, (goto("a"),))))
    assert found.outcome.fate is Fate.UNKNOWN
    assert found.doubts[0].why.startswith("more than 10,000 jumps: the chains lead in a circle")


# ── Verdict maps ───────────────────────────────────────────────────────────────────────────────────────────────────
def vmap(key: Field, led: dict[tuple[Value, ...], Statement]) -> VerdictMap:
    return VerdictMap(Read(key), Elements(exact=led))  # type: ignore[arg-type]


def test_a_verdict_map_decides_by_its_element_and_goes_on_without_one() -> None:
    rules = table(chain("out", OUT, (vmap(Field.TCP_DPORT, {(80,): DROP, (443,): ACCEPT}),), (Reject(),)))
    assert said(explained(sent(port=80), rules)) == "drop"
    assert said(explained(sent(port=443), rules)) == "accept: leaves by eth0"
    assert said(explained(sent(port=22), rules)) == "reject"


def test_a_verdict_map_by_chance_leads_to_each_of_its_elements_and_nowhere_else() -> None:
    key = Opaque("numgen random mod 2", "chance decides")
    both = Elements(exact={(0,): jump("a"), (1,): jump("b")})
    rules = table(
        chain("nat", nat(Hook.OUTPUT), (VerdictMap(key, both),)),
        chain("a", None, (redirect(1),)),
        chain("b", None, (redirect(2),)),
    )
    found = explained(sent(), rules)
    assert possible(found) == {"redirect 127.0.0.1 1", "redirect 127.0.0.1 2"}
    assert found.doubts[0].why == "chance decides"


# ── What is compared ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("op", "value", "drops"),
    [
        (Op.EQUAL, 80, True),
        (Op.UNEQUAL, 80, False),
        (Op.LESS, 81, True),
        (Op.LESS, 80, False),
        (Op.LESS_OR_EQUAL, 80, True),
        (Op.GREATER, 79, True),
        (Op.GREATER_OR_EQUAL, 81, False),
    ],
)
def test_operators(op: Op, value: int, drops: bool) -> None:
    rules = table(chain("out", OUT, (Match(Read(Field.TCP_DPORT), op, Constant(value)), DROP)))
    assert (explained(sent(), rules).outcome.fate is Fate.DROP) is drops


def test_any_bit_is_of_bit_fields() -> None:
    flags = Match(Read(Field.TCP_FLAGS), Op.ANY_BIT, Constant(SYN | ACK))
    rules = table(chain("out", OUT, (flags, DROP)))
    assert said(explained(sent(tcp_flags=SYN), rules)) == "drop"
    assert said(explained(sent(tcp_flags=1), rules)) == "accept: leaves by eth0"


def test_a_field_that_the_packet_has_not_is_missed_whatever_the_operator() -> None:
    unlike = Match(Read(Field.UDP_DPORT), Op.UNEQUAL, Constant(53))
    assert said(explained(sent(), table(chain("out", OUT, (unlike, DROP))))) == "accept: leaves by eth0"
    assert said(explained(sent(protocol=UDP), table(chain("out", OUT, (unlike, DROP))))) == "drop"


def test_iptables_owner_negated_matches_what_has_no_owner() -> None:
    rules = saved("filter", "-A INPUT -m owner ! --uid-owner 5 -j DROP")
    assert said(explained(arriving(), *rules)) == "drop"


def test_an_interface_that_a_hook_has_not_is_an_empty_name() -> None:
    """nft_meta.c: nft_meta_store_ifname; so `!=` holds."""
    unlike = Match(Read(Field.IIFNAME), Op.UNEQUAL, Constant("lo"))
    assert said(explained(sent(), table(chain("out", OUT, (unlike, DROP))))) == "drop"


def test_an_interface_by_the_beginning_of_its_name() -> None:
    eth = Match(Read(Field.OIFNAME), Op.EQUAL, Elements(spans=(((Span("eth*", "eth*"),), None),)))
    rules = table(chain("out", OUT, (eth, DROP)))
    assert said(explained(sent(), rules)) == "drop"
    assert said(explained(sent("10.9.0.9"), rules)) == "accept: leaves by net1"


@pytest.mark.parametrize("count", [1, 3, 50])
def test_ranges_of_a_set_are_found_few_or_many(count: int) -> None:
    spans = tuple(((Span(number * 10, number * 10 + 4),), None) for number in range(count, 0, -1))
    rules = table(chain("out", OUT, (Match(Read(Field.TCP_DPORT), Op.EQUAL, Elements(spans=spans)), DROP)))
    for number in range(count * 10 + 20):
        inside = 10 <= number < count * 10 + 10 and number % 10 < 5
        assert (explained(sent(port=number), rules).outcome.fate is Fate.DROP) is inside, number


def test_the_type_of_the_device_that_it_leaves_by_is_the_inputs_in_postrouting() -> None:
    """nft reads the type of the device that the packet is at; tried on 6.18."""
    rules = table(chain("post", filters(Hook.POSTROUTING), (equal(Field.IIFTYPE, 772), DROP)))
    assert said(explained(sent("10.0.0.5"), rules)) == "drop"


def test_a_statement_that_cannot_be_read_may_do_anything() -> None:
    found = explained(sent(), table(chain("out", OUT, (Unread(Opaque("xt target X", "unknown target")),))))
    assert possible(found) == {"accept", "drop"}
    in_nat = explained(sent(), table(chain("out", nat(Hook.OUTPUT), (Unread(Opaque("xt target X", "unknown")),))))
    assert possible(in_nat) == {"accept", "drop", "unknown"}


def test_a_queue_is_a_programs_to_decide() -> None:
    found = explained(sent(), table(chain("out", OUT, (Verdict(Decision.QUEUE),))))
    assert possible(found) == {"accept", "drop"}


def test_established_packets_pass_a_rule_for_them() -> None:
    rules = saved("filter", "-A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT", policies={"OUTPUT": "DROP"})
    assert said(explained(sent(state=ConntrackState.ESTABLISHED), *rules)) == "accept: leaves by eth0"
    assert said(explained(sent(), *rules)) == "drop"
