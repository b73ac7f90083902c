"""agent.logs: one line a record, and nothing in it moves a terminal's cursor."""

import json
import logging

from agent.logs import ConsoleLines, JsonLines


def record(message: str, **extra: object) -> logging.LogRecord:
    one = logging.LogRecord("headgate.pods", logging.WARNING, __file__, 1, message, (), None)
    one.created, one.msecs = 1_700_000_000.25, 250.0
    for name, value in extra.items():
        setattr(one, name, value)
    return one


def test_console_line() -> None:
    assert ConsoleLines().format(record("pod shop/cart is failed: x")) == (
        "2023-11-14T22:13:20.250Z WARNING headgate.pods: pod shop/cart is failed: x"
    )


def test_a_hostile_string_stays_on_its_line_and_is_seen() -> None:
    line = ConsoleLines().format(record("owner \x1b[2Jevil\nINFO forged"))
    assert "\n" not in line and "\x1b" not in line
    assert "\\x1b[2Jevil\\nINFO forged" in line


def test_json_line_has_the_pod_as_fields() -> None:
    line = JsonLines().format(record("pod is \x1b[2J", pod="shop/cart", uid="u-1", state="failed"))
    assert "\n" not in line and "\x1b" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "headgate.pods",
        "message": "pod is \x1b[2J",
        "pod": "shop/cart",
        "uid": "u-1",
        "state": "failed",
    }


def test_a_traceback_is_indented_below_its_line() -> None:
    try:
        raise ValueError("bad\x07")
    except ValueError as error:
        one = record("fault")
        one.exc_info = (ValueError, error, error.__traceback__)
    head, *trace = ConsoleLines().format(one).splitlines()
    assert head.endswith("fault") and all(line.startswith("    ") for line in trace)
    assert trace[-1] == "    ValueError: bad\\x07"
