"""docs/reliability.md: the text with the table of what was counted, and nothing of it made up."""

from pathlib import Path

from tests.netns.faults import report
from tests.netns.faults.record import Line, read, record
from tests.netns.faults.verdict import Verdict

GOOD = Verdict(1200, 1200, 0, {}, 300, 2_000_000, 5_400_000)
BAD = Verdict(100, 90, 4, {"reset": 2, "refused": 4}, 50, 1_000_000, 1_000_000)


def test_lines_are_kept_by_key_and_a_later_run_replaces_its_own(tmp_path: Path) -> None:
    file = tmp_path / "build" / "reliability.json"
    record(Line("b", "test_x", BAD), file)
    record(Line("a", "test_y", GOOD, found_s=0.5, healed_s=0.25, note="seen"), file)
    record(Line("b", "test_x", GOOD), file)
    assert [(line["key"], line["lost"]) for line in read(file)] == [("a", 0), ("b", 0)]


def test_nothing_recorded_is_nothing_read(tmp_path: Path) -> None:
    assert read(tmp_path / "absent.json") == []


def test_the_table_tells_each_loss_by_kind_and_the_sum(tmp_path: Path) -> None:
    file = tmp_path / "reliability.json"
    record(Line("a", "test_y", GOOD, found_s=0.5, healed_s=0.25, note="seen"), file)
    record(Line("b", "test_x", BAD), file)
    found = report.document("before\n@measured@\nafter\n", read(file)).splitlines()
    assert found[0] == "before" and found[-1] == "after"
    assert found[3:6] == [
        "| `a` | 1,200 | 300 | 0 | 0 | 5 ms | 0.50 s | 0.25 s | seen |",
        "| `b` | 100 | 50 | 6 (4 refused, 2 reset) | 4 | 1 ms |  |  |  |",
        "| all | 1,300 | 350 | 6 | 4 |  |  |  |  |",
    ]


def test_the_text_has_a_place_for_the_table_and_names_only_tests_that_exist() -> None:
    text = report.TEXT.read_text(encoding="utf-8")
    assert (text.count("@measured@\n"), text.count("@node@\n")) == (1, 1)
    here = report.TEXT.parent
    named = [part for part in text.split("`") if part.endswith(".py")]
    assert len(named) >= 10
    for name in named:
        assert (here / name).exists() or (here.parent / name).exists(), name
