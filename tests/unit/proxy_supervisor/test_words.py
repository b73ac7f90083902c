"""What the proxy writes for people and machines: foreign text escaped, log lines whole, the port message complete."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PRINTABLE_LIMIT, printable
from proxy.logs import ConsoleLines, JsonLines
from proxy.supervisor.listeners import PortTaken, port_taken_message


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("proxy.test", logging.WARNING, __file__, 1, message, arguments, info)
    made.created, made.msecs = 1767323045.678, 678.0
    return made


@given(st.text(max_size=PRINTABLE_LIMIT))
def test_printable_leaves_nothing_that_moves_a_cursor_or_ends_a_line(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert all(c.isprintable() for c in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1", "web-1"),
        ("a b", "a b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines", "two\\nlines"),
        ("\u202eright to left", "\\u202eright to left"),
        ("Zürich", "Zürich"),
        ("x" * 300, "x" * PRINTABLE_LIMIT + "…"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_console_line_is_one_line_whatever_the_text() -> None:
    line = ConsoleLines().format(record("pod %s left", "shop/web\n2026 forged"))
    assert line == "2026-01-02T03:04:05.678Z WARNING proxy.test: pod shop/web\\n2026 forged left"


def test_a_json_line_is_one_object_with_its_exception() -> None:
    line = JsonLines().format(record("pod %s", 'we"b\n', error=ValueError("why")))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["message"] == 'pod we"b\n'
    assert (fields["level"], fields["time"]) == ("warning", "2026-01-02T03:04:05.678Z")
    assert "ValueError: why" in fields["exception"]


def test_a_taken_port_names_port_holder_and_remedy() -> None:
    taken = PortTaken(15001, 4, frozenset({7}))
    assert port_taken_message(taken, "pid 12 (nginx)") == (
        "port 15001/tcp4 is already taken in the pod by pid 12 (nginx): headgate needs it to listen on; "
        "move that application to another port, or leave the pod out with the label headgate.io/mesh=disabled"
    )
    assert "by a socket whose process cannot be seen from here:" in port_taken_message(taken, "")
