"""docs/debugging.md is what the tools print: all ten stories happen again."""

import difflib

import pytest

from tests.stories.normal import Normal, aligned
from tests.stories.page import PAGE, STORIES, anchor, recorded


@pytest.mark.timeout(300)  # ten labs and some 70 commands: half a minute alone on two cores
def test_page_of_stories_is_what_the_tools_print() -> None:
    page = PAGE.read_text(encoding="utf-8")
    differs = "\n".join(
        difflib.unified_diff(page.splitlines(), recorded().splitlines(), "docs/debugging.md", "now", n=1)
    )
    assert not differs, f"read it; when it is meant so, `make stories` records the page anew\n{differs}"


def test_contents_lead_to_ten_stories() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert headings == [story.title for story in STORIES] and len(headings) == 10
    assert all(f"(#{anchor(title)})" in page for title in headings)


def test_only_what_changes_by_itself_is_made_the_same() -> None:
    normal = Normal()
    said = "10.0.0.1:51234 -> 127.0.0.1:15001 -> 10.0.0.1:51234, pid 812, 8080 since 12:00:00.123456Z, worker 3"
    told = "10.0.0.1:40001 -> 127.0.0.1:15001 -> 10.0.0.1:40001, pid 21001, 8080 since 03:00:00.000000Z, worker 0"
    assert normal.told(said) == told
    assert normal.told("10.0.0.1:51235, process 812 of app/4711") == "10.0.0.1:40002, process 21001 of app/21002"


def test_columns_are_straight_again() -> None:
    table = "FROM         WHO\n10.0.0.1:99  app/7777777\nb            c\nthe end, no row of it"
    assert (
        aligned(table, lambda cell: cell.replace("10.0.0.1:99", "x"))
        == "FROM  WHO\nx     app/7777777\nb     c\nthe end, no row of it"
    )
