"""`headgate conn` as a person types it, and the row of a connection among what it shows."""

import json
from typing import Any

from click.testing import CliRunner, Result

from agent.cli import main

Row = dict[str, Any]
Place = tuple[object, int]


def headgate_conn(*words: str) -> Result:
    return CliRunner().invoke(main, ["conn", *words])


def said(*words: str) -> dict[str, Any]:
    """As JSON; it must succeed."""
    done = headgate_conn(*words, "-o", "json")
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def rows(*words: str) -> list[Row]:
    found: list[Row] = said(*words)["connections"]
    return found


def opened_by(found: list[Row], place: Place) -> Row:
    """The one that was opened from there."""
    (row,) = [row for row in found if is_at(row["source"], place)]
    return row


def is_at(end: Row, place: Place) -> bool:
    return (end["address"], end["port"]) == (str(place[0]), place[1])
