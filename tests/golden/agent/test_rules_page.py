"""docs/rules.md tells every rule that a plan can hold. `make golden` writes its tables anew: read the diff."""

import os
import re
from pathlib import Path

from tests.golden.agent.rule_notes import NOTES, note_of
from tests.golden.agent.rules_page import BEGIN, END, every_rule, general, plans, tables

DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "rules.md"


def test_the_tables_are_those_of_the_plans() -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    old, marker, after = rest.partition(END)
    assert marker, f"{PAGE.name} lost its markers"
    if os.environ.get("REFRESH_GOLDEN"):
        PAGE.write_text(f"{before}{BEGIN}{tables()}{END}{after}", encoding="utf-8")
        old = tables()
    assert old == tables()


def test_every_rule_that_a_plan_can_hold_is_told_with_its_occasion_and_its_cases() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [rule_id for rule_id in every_rule() if f"| `{rule_id}`" not in page and f", `{rule_id}`" not in page]
    assert missing == []
    assert [rule_id for rule_id in every_rule() if note_of(rule_id) is None] == []


def test_no_note_is_of_a_rule_that_there_is_not() -> None:
    spoken = {note_of(rule_id) for rule_id in every_rule()}
    assert [note.pattern for note in NOTES if note not in spoken] == []


def test_every_case_that_is_named_has_its_test() -> None:
    told = set(re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", _cases(), re.MULTILINE))))
    named = {case for note in NOTES for case in note.cases.split(", ")}
    assert named <= told


def test_the_tables_keep_the_order_in_which_every_plan_has_its_rules() -> None:
    order = list(every_rule())
    for plan in plans():
        ids = list(dict.fromkeys(general(rule.rule_id) for rule in plan.all_rules))
        assert sorted(ids, key=order.index) == ids


def _cases() -> str:
    return (DOCS / "cases.md").read_text(encoding="utf-8")
