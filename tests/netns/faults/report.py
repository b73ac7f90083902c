"""Writes docs/reliability.md: what headgate guarantees, fault by fault, and the losses that the last run counted.

`python -m tests.netns.faults.report`, after the tests of this directory, of policy_stream and of lifecycle; `make
reliability` does both.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.netns.faults.record import FILE, ROOT, read

DOCUMENT: Final = ROOT / "docs" / "reliability.md"
TEXT: Final = Path(__file__).with_name("reliability.md")
_NODE: Final = "node-"
"""How the keys of tests/netns/lifecycle begin: a section of their own."""
_HEADINGS: Final = (
    "fault", "requests", "new connections", "lost", "cut", "slowest connect", "found", "healed", "what else was seen",
)  # fmt: skip


def main() -> int:
    """Exit status 1 when nothing was recorded."""
    lines = read()
    if not lines:
        print(f"{FILE} holds nothing: run the tests of tests/netns/faults first", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document(TEXT.read_text(encoding="utf-8"), lines), encoding="utf-8")
    print(f"written: {DOCUMENT.relative_to(ROOT)}", file=sys.stderr)
    return 0


def document(text: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """The text with both tables in the places of their marks."""
    of_node = [line for line in lines if line["key"].startswith(_NODE)]
    others = [line for line in lines if not line["key"].startswith(_NODE)]
    return text.replace("@measured@\n", table(others)).replace("@node@\n", table(of_node))


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """One row a test, in the order of the keys."""
    rows = [_HEADINGS, ("---", *["---:"] * 7, "---"), *map(_row, lines), _sum(lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    verdict = line["verdict"]
    return (
        f"`{line['key']}`",
        f"{verdict['sent']:,}",
        f"{verdict['connections']:,}",
        _lost(line),
        f"{verdict['cut']:,}",
        f"{verdict['connect_max_ns'] / 1e6:.0f} ms",
        _seconds(line["found_s"]),
        _seconds(line["healed_s"]),
        line["note"],
    )


def _sum(lines: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    verdicts = [line["verdict"] for line in lines]
    sums = [sum(verdict[name] for verdict in verdicts) for name in ("sent", "connections")]
    return (
        "all",
        *(f"{number:,}" for number in sums),
        f"{sum(line['lost'] for line in lines):,}",
        f"{sum(verdict['cut'] for verdict in verdicts):,}",
        "", "", "", "",
    )  # fmt: skip


def _lost(line: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(line["verdict"]["failed"].items()))
    return f"{line['lost']:,}" + (f" ({kinds})" if kinds else "")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
