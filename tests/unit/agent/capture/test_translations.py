"""What translation hides of a packet, in each of the ways in which a packet of a connection may look."""

from ipaddress import ip_address

import pytest

from agent.capture.translations import Seen, Translations, comment
from agent.kernel.conntrack_news import Connection, Direction
from agent.pods import IPAddress
from agent.tracing.headers import Headers

End = tuple[IPAddress, int]


def _end(address: str, port: int) -> End:
    return ip_address(address), port


CLIENT, SERVICE, PROXY = _end("10.0.0.5", 4000), _end("10.96.0.10", 80), _end("127.0.0.1", 15001)
POD, INBOUND, PEER = _end("10.0.0.5", 8080), _end("10.0.0.5", 15006), _end("10.0.0.9", 5000)
NODE, OUTSIDE = _end("192.0.2.1", 6000), _end("198.51.100.1", 443)


def _connection(source: End, destination: End, answers: End, to: End, number: int = 1) -> Connection:
    return Connection(number, 6, Direction(*source, *destination), Direction(*answers, *to), 0)


OUT = _connection(CLIENT, SERVICE, PROXY, CLIENT)
IN = _connection(PEER, POD, INBOUND, PEER, 2)
MASQUERADED = _connection(CLIENT, OUTSIDE, OUTSIDE, NODE, 3)
PLAIN = _connection(CLIENT, OUTSIDE, OUTSIDE, CLIENT, 4)


def _said(connection: Connection, source: End, destination: End, seen: Seen) -> str | None:
    known = Translations()
    known.add(connection)
    belongs = known.of(_packet(source, destination), seen)
    return None if belongs is None else comment(belongs, seen)


def _packet(source: End, destination: End, protocol: int = 6) -> Headers:
    return Headers(source[0], destination[0], protocol, source[1], destination[1])


@pytest.mark.parametrize(
    ("connection", "source", "destination", "seen", "said"),
    [
        pytest.param(
            OUT, CLIENT, PROXY, Seen.TRANSLATED, "to 10.96.0.10:80 before translation (steered to 15001)", id="steered"
        ),
        pytest.param(
            OUT,
            SERVICE,
            CLIENT,
            Seen.TRANSLATED,
            "from 127.0.0.1:15001 before translation (steered to 15001)",
            id="steered-answer",
        ),
        pytest.param(
            IN, PEER, POD, Seen.AS_SENT, "to 10.0.0.5:15006 after translation (steered to 15006)", id="arriving"
        ),
        pytest.param(
            IN,
            POD,
            PEER,
            Seen.TRANSLATED,
            "from 10.0.0.5:15006 before translation (steered to 15006)",
            id="arriving-answer",
        ),
        pytest.param(
            MASQUERADED, NODE, OUTSIDE, Seen.TRANSLATED, "from 10.0.0.5:4000 before translation", id="masqueraded"
        ),
        pytest.param(
            MASQUERADED, OUTSIDE, NODE, Seen.AS_SENT, "to 10.0.0.5:4000 after translation", id="masqueraded-answer"
        ),
    ],
)
def test_what_is_hidden_is_said(connection: Connection, source: End, destination: End, seen: Seen, said: str) -> None:
    assert _said(connection, source, destination, seen) == said


def test_the_proxys_own_connection_with_the_clients_ports_has_no_comment() -> None:
    """It leaves from the client's address and port, and looks as the client's did before it was steered."""
    assert _said(OUT, CLIENT, SERVICE, Seen.TRANSLATED) is None
    assert _said(OUT, SERVICE, CLIENT, Seen.AS_SENT) is None


def test_what_is_not_translated_is_not_kept() -> None:
    assert _said(PLAIN, CLIENT, OUTSIDE, Seen.TRANSLATED) is None


def test_another_protocol_is_another_connection() -> None:
    known = Translations()
    known.add(OUT)
    assert known.of(_packet(CLIENT, PROXY, 17), Seen.TRANSLATED) is None


def test_of_too_many_those_that_were_not_seen_for_longest_go() -> None:
    known = Translations(kept=2)
    known.add(OUT)
    known.add(IN)
    assert known.of(_packet(CLIENT, PROXY), Seen.TRANSLATED) is not None
    known.add(MASQUERADED)
    assert known.of(_packet(CLIENT, PROXY), Seen.TRANSLATED) is not None
    assert known.of(_packet(PEER, POD), Seen.AS_SENT) is None


def test_ports_that_a_later_connection_uses_are_the_laters() -> None:
    known = Translations(kept=1)
    known.add(OUT)
    known.add(_connection(CLIENT, SERVICE, _end("127.0.0.1", 15011), CLIENT, 9))
    belongs = known.of(_packet(SERVICE, CLIENT), Seen.TRANSLATED)
    assert belongs is not None and comment(belongs, Seen.TRANSLATED) == "from 127.0.0.1:15011 before translation"
