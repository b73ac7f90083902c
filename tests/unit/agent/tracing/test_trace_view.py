"""What people and programs read of a traced packet; nothing of it reaches a terminal as it came from the kernel."""

import json
from ipaddress import ip_address

from agent.cli.client import table
from agent.kernel.conntrack_news import Connection, Direction
from agent.tracing import headers, view
from agent.tracing.headers import Headers
from agent.tracing.known import KnownRule
from agent.tracing.traced import Kind, Loss, Trace, TracedPacket, TracedStep
from tests.unit.agent.tracing.messages import IPV4, ip_header, tcp_header

POD, SERVICE, LO = ip_address("10.0.0.5"), ip_address("10.96.0.10"), ip_address("127.0.0.1")


def _headers(destination: str, port: int) -> Headers:
    found = headers.of(IPV4, ip_header(str(POD), destination), tcp_header(4000, port))
    assert found is not None
    return found


SENT, LED = _headers(str(SERVICE), 80), _headers(str(LO), 15001)
JUMP = KnownRule("iptables-nft", "istio", "-p tcp -j ISTIO_OUTPUT", "", 1)
OURS = KnownRule("nft", "headgate", "redirect to :15001", "headgate:out-capture", 13, "out-capture", "to the proxy")
STEPS = (
    TracedStep(
        Kind.RULE, "ip", "nat", "OUTPUT", "nat output, priority -100", "istio", 5, JUMP, "jump", "ISTIO_OUTPUT", 0,
        SENT, leaves="eth0",
    ),
    TracedStep(
        Kind.END, "ip", "nat", "ISTIO_OUTPUT", "nat output, priority -100", "istio", 0, None, "continue", "", 0, None
    ),
    TracedStep(
        Kind.RULE, "inet", "headgate", "nat-output", "nat output, priority -100", "headgate", 9, OURS, "accept", "",
        0x539, SENT, leaves="eth0",
    ),
    TracedStep(
        Kind.POLICY, "ip", "filter", "INPUT", "filter input, priority 0", "unknown", 0, None, "accept", "", 0x539,
        LED, arrives="lo",
    ),
)  # fmt: skip
CONNECTION = Connection(7, 6, Direction(POD, 4000, SERVICE, 80), Direction(LO, 15001, POD, 4000), 1 << 5)
PACKET = TracedPacket(1, 0.25, SENT, STEPS, CONNECTION)
GOLDEN = """\
packet 1  00:00:00.250000Z  tcp syn  10.0.0.5:4000 -> 10.96.0.10:80, out by eth0
HOOK         TABLE          CHAIN       WHOSE    RESULT                RULE
output -100  ip nat         OUTPUT      istio    jump to ISTIO_OUTPUT  1: -p tcp -j ISTIO_OUTPUT
output -100  inet headgate  nat-output  ours     accept, mark 0x539    13: redirect to :15001  # out-capture: to the proxy
                                                                       -- now 10.0.0.5:4000 -> 127.0.0.1:15001, in by lo
input 0      ip filter      INPUT       unknown  policy accept         (end of the chain)
=> connection 10.0.0.5:4000 -> 10.96.0.10:80: destination becomes 127.0.0.1:15001
"""  # noqa: E501  # as wide as it is


def _told(packet: TracedPacket) -> str:
    return f"{view.heading(packet)}\n{table(view.HEAD, view.rows(packet))}\n=> {view.outcome(packet)}\n"


def test_a_packet_for_people() -> None:
    assert _told(PACKET) == GOLDEN


def test_a_dropped_packet_names_the_rule() -> None:
    rule = KnownRule("nft", "unknown", "tcp dport 80 drop", "", 4)
    step = TracedStep(Kind.RULE, "inet", "fw", "out", "", "unknown", 3, rule, "drop", "", 0, SENT)
    assert view.outcome(TracedPacket(1, 0, SENT, (step,))) == "dropped by rule 4 of inet fw, chain out"


def test_a_dropping_policy_is_named() -> None:
    step = TracedStep(Kind.POLICY, "inet", "fw", "out", "", "unknown", 0, None, "drop", "", 0, SENT)
    assert view.outcome(TracedPacket(1, 0, SENT, (step,))) == "dropped by policy of inet fw, chain out"


def test_an_answer_is_told_as_one() -> None:
    answer = headers.of(IPV4, ip_header(str(LO), str(POD)), tcp_header(15001, 4000, 18))
    assert answer is not None
    found = view.outcome(TracedPacket(1, 0, answer, (), CONNECTION))
    assert found == "an answer of the connection 10.0.0.5:4000 -> 10.96.0.10:80"


def test_a_rule_that_was_not_there_when_rules_were_read_is_told_by_its_handle() -> None:
    step = TracedStep(Kind.RULE, "ip", "nat", "OUTPUT", "", "unknown", 44, None, "accept", "", 0, SENT)
    assert "handle 44 (not known" in _told(TracedPacket(1, 0, SENT, (step,)))


def test_a_rule_that_changed_meanwhile_says_so() -> None:
    rule = KnownRule("nft", "unknown", "accept", "", 2, changed=True)
    step = TracedStep(Kind.RULE, "ip", "nat", "OUTPUT", "", "unknown", 44, rule, "accept", "", 0, SENT)
    assert "2 (changed while it was traced): accept" in _told(TracedPacket(1, 0, SENT, (step,)))


def test_hostile_names_and_comments_reach_neither_terminal_nor_json_as_they_are() -> None:
    evil = "\x1b[2J\nevil\u202e"
    rule = KnownRule("nft", "unknown", f"accept {evil}", evil, 1)
    step = TracedStep(
        Kind.RULE, "ip", evil, evil, "", "unknown", 4, rule, "jump", evil, 0, SENT, arrives=evil, leaves=evil
    )
    packet = TracedPacket(1, 0, SENT, (step,))
    dropped = TracedPacket(1, 0, SENT, (TracedStep(Kind.RULE, "ip", evil, evil, "", "", 4, rule, "drop", "", 0, SENT),))
    whole = json.dumps(view.as_json(Trace((packet, dropped), Loss(), (evil,))), ensure_ascii=False)
    for text in (_told(packet), _told(dropped), whole):
        assert "\x1b" not in text and "\u202e" not in text and "\nevil" not in text


def test_what_was_lost_is_told_in_words_and_nothing_is_said_of_nothing() -> None:
    assert list(view.told_loss(Loss(5, 5))) == []
    said = "\n".join(view.told_loss(Loss(begun=10, read=8, messages=44, over_limit=3)))
    assert "2 of 10 packets" in said and "44 messages" in said and "3 more packets" in said


def test_json_has_the_steps_with_their_rules_and_the_connection_both_ways() -> None:
    (packet,) = view.as_json(Trace((PACKET,), Loss(1, 1)))["packets"]
    assert [step["result"] for step in packet["steps"]] == [
        "jump to ISTIO_OUTPUT", "goes on", "accept, mark 0x539", "policy accept",
    ]  # fmt: skip
    assert packet["steps"][2]["rule"]["id"] == "out-capture"
    assert packet["connection"]["reply"]["source_port"] == 15001
    assert packet["steps"][3]["at"]["destination"] == "127.0.0.1"
