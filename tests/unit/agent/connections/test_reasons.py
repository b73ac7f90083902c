"""Why a connection goes direct: what the kernel remembers, what is never steered, what the rules make of it."""

from ipaddress import ip_address

import pytest

from agent.connections.reasons import MOST_JUDGED, Known, Reasons
from agent.connections.values import Connection, End, Path, Reason, Way
from agent.explain.outcome import Doubt, Explanation, Fate, Outcome, Passage, Result, Step
from agent.explain.packet import Packet
from agent.explain.packet import Way as PacketWay
from agent.explain.statements import Constant, Decision, Field, Match, Op, Read, Verdict
from agent.explain.tables import Base, Chain, ChainType, Hook, Rule, Table, Tool
from tests.unit.agent.connections.described import POD, POD6, key, place

OUT = f"{POD}:4000 > 10.96.0.10:80"


def rule(place: int, decision: Decision, comment: str = "", chain: str = "") -> Rule:
    statements = (Match(Read(Field.TCP_DPORT), Op.EQUAL, Constant(80)), Verdict(decision, chain))
    return Rule(place, statements, text="tcp dport 80 …", comment=comment)


LETS_PASS = rule(1, Decision.ACCEPT)
OURS = rule(3, Decision.ACCEPT, "headgate:out-capture-skip-ports")
JUMPS = rule(2, Decision.JUMP, chain="MESH")
RETURNS = rule(1, Decision.RETURN)
TABLE = Table(
    Tool.NFT,
    "inet",
    "t",
    {
        "filter": Chain("filter", (LETS_PASS,), Base(ChainType.FILTER, Hook.OUTPUT, -300)),
        "nat": Chain("nat", (OURS, JUMPS), Base(ChainType.NAT, Hook.OUTPUT, -100)),
        "MESH": Chain("MESH", (RETURNS,)),
    },
    {},
)


def step(chain: str, rule: Rule | None, result: Result, what: str = "") -> Step:
    return Step(Hook.OUTPUT, TABLE, chain, rule, result, what)


def direct(text: str = OUT, way: Way = Way.OUTBOUND, uid: int | None = 1000) -> Connection:
    address, port, remote, remote_port = key(text)
    return Connection("tcp", way, End(address, port, uid=uid), End(remote, remote_port), Path.DIRECT)


def accepted(*path: Step | Passage) -> Explanation:
    return Explanation(Outcome(Fate.ACCEPT), path)


class Rules:
    """Answers alike, and remembers what it was asked."""

    def __init__(self, answer: Explanation | None = None) -> None:
        self.answer = answer or accepted()
        self.asked: list[Packet] = []

    def __call__(self, packet: Packet) -> Explanation:
        self.asked.append(packet)
        return self.answer


def explained(one: Connection, rules: Rules | None = None, known: Known | None = None) -> Connection:
    return Reasons(known or Known({}, {}), rules).explained(one)


# ── Without asking the rules ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("reason", [Reason.GRANDFATHERED, Reason.DRIFT, Reason.RULES_CHANGED])
@pytest.mark.parametrize("way", [Way.OUTBOUND, Way.INBOUND])
def test_what_the_sets_in_the_kernel_remember_is_the_reason(reason: Reason, way: Way) -> None:
    rules = Rules()
    opened = OUT if way is Way.OUTBOUND else f"10.96.0.10:80 > {POD}:4000"
    assert explained(direct(opened, way), rules, Known({key(OUT): reason}, {})).reason is reason
    assert rules.asked == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("127.0.0.1:4000 > 127.0.0.1:80", Reason.LOOPBACK),
        ("[::1]:4000 > [::1]:80", Reason.LOOPBACK),
        ("[fe80::5]:4000 > [fe80::1]:80", Reason.LINK_LOCAL),
    ],
)
def test_what_no_rule_ever_steers(text: str, reason: Reason) -> None:
    rules = Rules()
    assert explained(direct(text), rules).reason is reason
    assert rules.asked == []


def test_what_is_steered_or_has_its_reason_is_left_as_it_is() -> None:
    led = Connection("tcp", Way.OUTBOUND, End(*place("10.0.0.5:1")), End(*place("10.0.0.6:2")), Path.HTTP)
    assert explained(led, Rules()) is led


def test_where_the_rules_cannot_be_read_nothing_is_guessed() -> None:
    assert explained(direct()).reason is Reason.UNKNOWN


# ── By the rules that are there ────────────────────────────────────────────────────────────────────────────────────
def test_a_rule_of_ours_that_lets_it_pass_is_named_with_its_meaning() -> None:
    one = explained(direct(), Rules(accepted(step("nat", OURS, Result.DECIDED))))
    assert one.reason is Reason.EXCLUDED
    assert one.why == "by out-capture-skip-ports: excluded ports are reached direct (inet t nat rule 3)"


def test_what_another_chain_accepts_is_no_reason() -> None:
    """An accept of a filter chain ends that chain only."""
    one = explained(direct(), Rules(accepted(step("filter", LETS_PASS, Result.DECIDED), Passage("routed"))))
    assert one.reason is Reason.NO_RULE


def test_a_peers_return_from_its_own_chain_is_the_rule() -> None:
    path = step("nat", JUMPS, Result.WENT_ON), step("MESH", RETURNS, Result.WENT_ON, "return")
    one = explained(direct(), Rules(accepted(*path, step("nat", None, Result.WENT_ON, "policy accept"))))
    assert one.reason is Reason.EXCLUDED and one.why.endswith("(inet t MESH rule 1)")
    assert "to port 80" in one.why, "in words, for it says nothing of itself"


def test_a_rule_that_did_not_match_is_no_reason() -> None:
    assert explained(direct(), Rules(accepted(step("nat", OURS, Result.MISSED)))).reason is Reason.NO_RULE


@pytest.mark.parametrize("fate", [Fate.REDIRECT, Fate.TPROXY])
def test_what_would_be_led_away_now_is_older_or_slipped_past(fate: Fate) -> None:
    one = explained(direct(), Rules(Explanation(Outcome(fate, port=15001), ())))
    assert (one.reason, one.why) == (Reason.PAST, f"now: {fate.value} to port 15001")


def test_a_doubt_is_told_and_not_decided() -> None:
    doubt = Doubt(TABLE, "nat", OURS, "xt match bpf", "this version does not interpret it")
    one = explained(direct(), Rules(Explanation(Outcome(Fate.UNKNOWN), (), (doubt,))))
    assert one.reason is Reason.UNKNOWN and "xt match bpf" in one.why


def test_the_packet_is_the_connections_first() -> None:
    rules = Rules()
    known = Known({}, {ip_address(POD): "eth0", ip_address(POD6): "net1"})
    explained(direct(), rules, known)
    explained(direct(f"[fd00::7]:4000 > [{POD6}]:80", Way.INBOUND), rules, known)
    out, into = rules.asked
    assert (out.way, out.destination, out.destination_port, out.source) == (
        PacketWay.OUTBOUND,
        ip_address("10.96.0.10"),
        80,
        ip_address(POD),
    )
    assert out.sender is not None and (out.sender.uid, out.sender.gid) == (1000, None), "sock_diag tells no group"
    assert (into.way, into.interface, into.sender) == (PacketWay.INBOUND, "net1", None)


def test_alike_packets_are_asked_about_once_and_never_too_many() -> None:
    rules = Rules()
    reasons = Reasons(Known({}, {}), rules)
    for port in (4000, 4001):
        reasons.explained(direct(f"{POD}:{port} > 10.96.0.10:80"))
    assert len(rules.asked) == 1
    told = [
        reasons.explained(direct(f"{POD}:4000 > 10.96.0.10:{port}")) for port in range(1000, 1000 + MOST_JUDGED + 5)
    ]
    assert len(rules.asked) == MOST_JUDGED
    assert reasons.unjudged == 6 == sum(one.reason is Reason.UNKNOWN for one in told)


def test_who_waits_is_not_kept_longer_than_there_is_time() -> None:
    rules = Rules()
    reasons = Reasons(Known({}, {}), rules, lambda: len(rules.asked) < 3)
    told = [reasons.explained(direct(f"{POD}:4000 > 10.96.0.10:{port}")) for port in range(1000, 1010)]
    assert len(rules.asked) == 3 and reasons.unjudged == 7
    assert [one.reason for one in told] == [Reason.NO_RULE] * 3 + [Reason.UNKNOWN] * 7
