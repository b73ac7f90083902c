"""Hostile text on its way to a log line or a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.printable import printable


@given(st.text())
def test_result_is_one_printable_line_of_bounded_length(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 200


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=200))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"), [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202egnp", "\\u202egnp"), ("\udcff", "\\udcff")]
)
def test_what_would_move_the_terminal_is_shown_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_is_cut_visibly() -> None:
    assert printable("x" * 30, 10) == "xxxxxxxxx…"
