"""Messages become packets: each its own, over lo again too, and nobody else's."""

from agent.kernel.nftrace import POLICY, TraceEvent
from agent.tracing.gathering import Gathering
from tests.unit.agent.tracing.messages import ACCEPT, event, ip_header, tcp_header

OURS = "headgate-trace-1-1"
SENT = (ip_header("10.0.0.5", "10.0.0.9"), tcp_header(4000, 80))
LED = (ip_header("10.0.0.5", "127.0.0.1"), tcp_header(4000, 15001))
OTHER = (ip_header("10.0.0.5", "10.0.0.9", ident=8), tcp_header(4001, 80, sequence=2))


def _begun(trace_id: int, headers: tuple[bytes, bytes] = SENT, table: str = OURS, iif: int = 0) -> TraceEvent:
    return event(trace_id, table, "output", handle=2, headers=headers, iif=iif)


def _nat(trace_id: int) -> TraceEvent:
    return event(trace_id, "nat", "OUTPUT", handle=9, verdict=ACCEPT, headers=SENT, ct_id=5)


def _chains(packet: object) -> list[str]:
    return [f"{e.table} {e.chain}" for e in packet.events if e.table != OURS]  # type: ignore[attr-defined]


def test_messages_of_two_packets_that_come_mixed_are_told_apart() -> None:
    gathering = Gathering(OURS)
    for found in (_begun(1), _begun(2, OTHER), event(2, "nat", "OUTPUT"), event(1, "filter", "OUTPUT")):
        gathering.take(found, 0.0)
    first, second = gathering.done(1.0)
    assert (_chains(first), _chains(second)) == (["filter OUTPUT"], ["nat OUTPUT"])
    assert gathering.read == 2


def test_a_packet_that_comes_back_over_lo_translated_is_the_same_packet() -> None:
    gathering = Gathering(OURS)
    for found in (_begun(1), _nat(1), event(2, "filter", "INPUT", headers=LED, iif=1, ct_id=5)):
        gathering.take(found, 0.0)
    (packet,) = gathering.done(1.0)
    assert _chains(packet) == ["nat OUTPUT", "filter INPUT"]


def test_over_lo_it_is_the_same_packet_when_the_trace_marks_it_there_once_more() -> None:
    gathering = Gathering(OURS)
    again = event(2, OURS, "prerouting", handle=3, headers=LED, iif=1, ct_id=5)
    for found in (_begun(1), _nat(1), again, event(2, "filter", "INPUT", headers=LED, iif=1, ct_id=5)):
        gathering.take(found, 0.0)
    (packet,) = gathering.done(1.0)
    assert _chains(packet) == ["nat OUTPUT", "filter INPUT"]
    assert gathering.read == 2, "the kernel counted it twice, too"


def test_a_packet_of_another_connection_that_looks_alike_is_another() -> None:
    gathering = Gathering(OURS)
    for found in (_begun(1), _nat(1), event(2, "filter", "INPUT", headers=LED, iif=1, ct_id=6)):
        gathering.take(found, 0.0)
    (packet,) = gathering.done(1.0)
    assert _chains(packet) == ["nat OUTPUT"]


def test_what_another_trace_marked_is_left_out() -> None:
    gathering = Gathering(OURS)
    other = "headgate-trace-2-1"
    for found in (_begun(1, table=other), event(1, "nat", "OUTPUT", headers=SENT), event(3, OURS, "output")):
        gathering.take(found, 0.0)
    assert list(gathering.done(1.0)) == [] and gathering.read == 0


def test_a_trace_id_that_the_next_packet_gets_begins_another_packet() -> None:
    gathering = Gathering(OURS)
    for found in (_begun(1), event(1, "nat", "OUTPUT"), _begun(1, OTHER), event(1, "filter", "OUTPUT")):
        gathering.take(found, 0.0)
    first, second = gathering.done(1.0)
    assert (_chains(first), _chains(second)) == (["nat OUTPUT"], ["filter OUTPUT"])


def test_a_packet_is_done_when_nothing_was_told_of_it_for_a_while_and_forgotten_then() -> None:
    gathering = Gathering(OURS)
    gathering.take(_begun(1), 0.0)
    gathering.take(event(1, "filter", "OUTPUT", kind=POLICY, policy=1), 0.05)
    assert list(gathering.done(0.1)) == []
    assert len(list(gathering.done(0.2))) == 1
    gathering.take(event(1, "filter", "OUTPUT", headers=SENT), 0.2)
    assert list(gathering.done(9.0)) == []
    assert not (gathering._open or gathering._by_id or gathering._by_identity)


def test_the_mark_and_the_headers_before_any_rule_are_kept() -> None:
    gathering = Gathering(OURS)
    gathering.take(event(1, OURS, "output", handle=2, headers=SENT, mark=0x539), 0.0)
    (packet,) = gathering.done(1.0)
    assert (packet.mark, packet.sent.destination_port) == (0x539, 80)
