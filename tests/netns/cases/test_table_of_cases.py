"""docs/cases.md is what a reader goes by: it names every case proved here, and no test that does not exist."""

import ast
import re
from pathlib import Path

NETNS = Path(__file__).parents[1]
TABLE = (NETNS.parents[1] / "docs/cases.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([a-z_]+/\w+\.py)::(\w+)`", TABLE))


def _tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_test_that_the_table_names_exists() -> None:
    assert NAMED, "the table has another form than expected"
    assert [f"{path}::{name}" for path, name in sorted(NAMED) if name not in _tests(NETNS / path)] == []


def test_each_case_proved_here_is_in_the_table() -> None:
    here = {(f"cases/{path.name}", name) for path in Path(__file__).parent.glob("test_*.py") for name in _tests(path)}
    assert {(path, name) for path, name in here if name.startswith("test_b")} - NAMED == set()


def test_each_row_s_case_is_the_number_in_its_test_s_name() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| `[^`]*::test_b(\d+)_", TABLE, re.MULTILINE)
    assert len(rows) == len(NAMED)
    assert [row for row in rows if int(row[1]) not in map(int, row[0].split(","))] == []
