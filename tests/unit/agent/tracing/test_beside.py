"""Explanation and kernel's trace side by side: what agrees, what differs, and what cannot be compared."""

import json
from ipaddress import ip_address

from agent.explain.outcome import Explanation, Fate, Outcome, Passage, Result, Step
from agent.explain.statements import ACCEPT, Constant, Field, Match, Op, Read
from agent.explain.tables import Chain, Hook, Rule, Table, Tool
from agent.kernel.conntrack_news import Connection, Direction
from agent.tracing import beside_view
from agent.tracing.beside import Beside, beside
from agent.tracing.headers import Headers
from agent.tracing.traced import Kind, Loss, Trace, TracedPacket, TracedStep

HOSTILE = "x\x1b[2J\n"
OWN, THERE = ip_address("10.0.0.5"), ip_address("192.0.2.2")
SENT = Headers(OWN, THERE, 6, 40000, 80)
TESTED = Match(Read(Field.TCP_DPORT), Op.EQUAL, Constant(80))
PASSES = Outcome(Fate.ACCEPT)
REDIRECT = Outcome(Fate.REDIRECT, ip_address("127.0.0.1"), 15001)
RULES = tuple(Rule(place, (TESTED, ACCEPT), handle=100 + place) for place in range(1, 6))
NAT = Table(Tool.NFT, "inet", "t", {"c": Chain("c", RULES)}, {})


def said(*places: int, result: Result = Result.WENT_ON, table: Table = NAT) -> tuple[Step, ...]:
    return tuple(Step(Hook.OUTPUT, table, "c", RULES[place - 1], result, "accept") for place in places)


def missed(place: int) -> Step:
    return Step(Hook.OUTPUT, NAT, "c", RULES[place - 1], Result.MISSED, failed=TESTED)


def seen(*handles: int, verdict: str = "continue", name: str = "t") -> tuple[TracedStep, ...]:
    hook = "filter output, priority 0"
    return tuple(
        TracedStep(Kind.RULE, "inet", name, "c", hook, "unknown", handle, None, verdict, "", 0, None)
        for handle in handles
    )


def traced(*steps: TracedStep, led: tuple[str, int] | None = None) -> Trace:
    source, port = led or (str(THERE), 80)
    reply = Direction(ip_address(source), port, OWN, 40000)
    status = 1 << 5 if led else 0
    connection = Connection(1, 6, Direction(OWN, 40000, THERE, 80), reply, status)
    return Trace((TracedPacket(1, 0.0, SENT, steps, connection),), Loss())


def compared(path: tuple[Step | Passage, ...], trace: Trace, outcome: Outcome = PASSES) -> Beside:
    return beside(Explanation(outcome, path), trace, "")


def test_the_same_rules_and_the_same_end_agree() -> None:
    path = (Passage("routed: by eth0"), missed(1), *said(2, 3))
    found = compared(path, traced(*seen(102, 103), led=("127.0.0.1", 15001)), REDIRECT)
    assert found.differs == () and [(r.explained, r.traced) for r in found.rows] == [(True, True)] * 2
    assert list(beside_view.lines(found))[-1] == "the kernel's trace agrees"


def test_a_rule_that_only_one_of_them_met_is_named() -> None:
    found = compared(said(1, 2), traced(*seen(101, 103)))
    assert found.differs == (
        "inet t c rule 2: only explain says that it matched",
        "inet t c handle 103: only the kernel says that it matched",
    )
    assert [beside_view.lines(found)] and "  - inet t c rule 2" in list(beside_view.lines(found))


def test_another_end_differs() -> None:
    assert compared(said(1), traced(*seen(101), led=("127.0.0.1", 15001))).differs == (
        "the kernel led it to 127.0.0.1 port 15001, explain says that it passes",
    )
    assert compared(said(1), traced(*seen(101), led=("127.0.0.1", 15006)), REDIRECT).differs == (
        "the kernel led it to 127.0.0.1 port 15006, explain says 127.0.0.1 port 15001",
    )
    assert compared(said(1), traced(*seen(101, verdict="drop"))).differs == (
        "the kernel dropped it, explain says accept",
    )
    assert compared(said(1), traced(*seen(101)), Outcome(Fate.DROP)).differs == (
        "the kernel did not drop it, explain says drop",
    )
    assert compared(said(1), traced(*seen(101, verdict="drop")), Outcome(Fate.REJECT)).differs == ()


def test_what_routing_drops_leaves_no_trace() -> None:
    found = compared(said(1), traced(*seen(101)), Outcome(Fate.DROP, note=("no route to 10.244.0.7",)))
    assert found.differs == ()
    assert found.notes == ("explain says that it is lost outside of rules (no route to 10.244.0.7): not compared",)


def test_of_several_ways_it_is_the_one_that_the_kernel_went() -> None:
    one, other = said(1, 2), said(1, 3)
    explanation = Explanation(Outcome(Fate.UNKNOWN), one, (), ((REDIRECT, one), (PASSES, other)))
    found = beside(explanation, traced(*seen(101, 103)), "")
    assert (found.differs, found.way) == ((), 2)
    assert "it went way 2" in list(beside_view.lines(found))


def test_what_hangs_on_what_is_not_known_is_shown_and_not_judged() -> None:
    path = (*said(1), *said(2, result=Result.PERHAPS), *said(3))
    found = compared(path, traced(*seen(101, 104)))
    assert found.differs == () and len(found.rows) == 4
    assert found.notes == ("from inet t c rule 2 on rules hang on what is not known, and are not compared",)
    assert compared(path, traced(*seen(104))).differs != ()  # the first rule is certain


def test_legacys_rules_are_not_missed() -> None:
    legacy = Table(Tool.IPTABLES_LEGACY, "ip", "nat", {"c": Chain("c", RULES)}, {})
    assert compared(said(1, 2, table=legacy), traced()).differs == ()


def test_a_packet_that_was_never_seen() -> None:
    nothing = Trace((), Loss(), ("iptables-legacy holds rules (ip)",))
    assert beside(Explanation(PASSES, said(1)), nothing, "").differs == ("the kernel traced nothing",)
    refused = beside(Explanation(PASSES, said(1)), nothing, "Network is unreachable")
    assert refused.differs == ()
    assert refused.notes == (
        "iptables-legacy holds rules (ip)",
        "the kernel would not send it: Network is unreachable",
    )


def test_without_a_connection_the_end_is_not_compared() -> None:
    packet = TracedPacket(1, 0.0, SENT, seen(101))
    found = beside(Explanation(REDIRECT, said(1)), Trace((packet, packet), Loss()), "")
    assert found.differs == ()
    assert found.notes == (
        "conntrack told no connection of it: where it was led is not compared",
        "2 packets looked like it; this is the first one's trace",
    )


def test_nothing_reaches_a_terminal_raw() -> None:
    hostile = Table(Tool.NFT, "inet", HOSTILE, {"c": Chain("c", RULES)}, {})
    found = compared(said(1, table=hostile), traced(*seen(109, name=HOSTILE)))
    assert not any("\x1b" in line or "\n" in line for line in beside_view.lines(found))
    assert r"\u001b" not in json.dumps(beside_view.as_json(found))
    assert beside_view.as_json(found)["agrees"] is False
