"""Rows and JSON: everything that somebody else named is printable in them."""

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.connections import view
from agent.connections.values import Connection, End, Path, Process, Reason, Way

HOSTILE = "\x1b[31mred\r\n\u202e"
ONE = Connection(
    "tcp",
    Way.OUTBOUND,
    End(ip_address("10.0.0.5"), 4000, Process(11, "curl"), 1000),
    End(ip_address("fd96::10"), 80),
    Path.HTTP,
    "established",
    listener=15001,
    service="web.shop.svc.cluster.local",
    route="shop/web",
    upstream_from=(ip_address("10.0.0.5"), 5000),
    upstream=(ip_address("10.0.0.9"), 8080),
    age_s=75.0,
)


def test_a_row() -> None:
    assert view.row(ONE, wide=False) == (
        "tcp",
        "outbound",
        "10.0.0.5:4000",
        "[fd96::10]:80",
        ":15001 outbound",
        "http",
        "web.shop.svc.cluster.local",
        "75s",
        "curl/11",
        "",
    )
    wide = view.row(ONE, wide=True)
    assert len(wide) == len(view.WIDE_HEAD)
    assert dict(zip(view.WIDE_HEAD, wide, strict=True))["UPSTREAM"] == "10.0.0.9:8080"


def test_hostile_names_are_shown_and_do_nothing() -> None:
    hostile = replace(
        ONE,
        source=replace(ONE.source, process=Process(11, HOSTILE)),
        service=HOSTILE,
        route=HOSTILE,
        workload=HOSTILE,
        path=Path.DIRECT,
        reason=Reason.EXCLUDED,
        why=HOSTILE,
    )
    for cell in view.row(hostile, wide=True):
        assert cell.isprintable()
    told = view.as_json(hostile)
    texts = (told["service"], told["route"], told["workload"], told["reason_text"], told["source"]["command"])
    assert all(text.isprintable() and "\\x1b[31mred" in text for text in texts)


def test_an_age_that_nobody_remembers_is_told_as_a_bound() -> None:
    told = view.as_json(replace(ONE, age_s=None, at_least_s=12.0))
    assert (told["age_s"], told["age_at_least_s"]) == (None, 12.0)
    assert ">12s" in view.row(replace(ONE, age_s=None, at_least_s=12.0), wide=False)
    assert view.as_json(replace(ONE, at_least_s=12.0))["age_at_least_s"] is None


@pytest.mark.parametrize("reason", [*Reason, None])
def test_every_reason_has_words(reason: Reason | None) -> None:
    one = replace(ONE, reason=reason, path=Path.DIRECT)
    assert bool(view.reason(one)) is (reason is not None)
    json.dumps(view.as_json(one))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (3600, "1h"),
        (3720, "1h2m"),
        (90000, "1d1h"),
        (172800, "2d"),
    ],
)
def test_durations_are_kubectls(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text
