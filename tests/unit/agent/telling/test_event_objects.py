"""agent.telling.event_objects: Events in the API server's shape, and when each is written."""

from __future__ import annotations

import re
from dataclasses import replace

from agent.events import MESSAGE_CHARACTERS, EventType, PodEvent, Reason
from agent.telling.event_objects import KEPT_S, EventBook, Waiting, event_name, event_object, event_patch

BEGAN_S = 1_700_000_000.25
DRIFT = PodEvent("shop", "cart", "u-1", EventType.WARNING, Reason.DRIFTED, "gone", 1, BEGAN_S, BEGAN_S)
AGAIN = replace(DRIFT, message="swapped", count=2, last_s=BEGAN_S + 5)


def test_an_event_is_one_of_core_v1_about_the_pod_from_this_node() -> None:
    body = event_object(DRIFT, "node-1")
    assert body["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "cart", "uid": "u-1",
    }  # fmt: skip
    assert body["metadata"]["namespace"] == "shop"  # the API server refuses another than the pod's
    assert body["source"] == {"component": "headgate-agent", "host": "node-1"}
    assert (body["reportingComponent"], body["reportingInstance"]) == ("headgate.io/agent", "headgate-agent-node-1")
    assert (body["type"], body["reason"], body["count"]) == ("Warning", "RedirectionDrifted", 1)
    assert len(event_object(DRIFT, "n" * 253)["reportingInstance"]) == 128
    assert len(DRIFT.message) <= MESSAGE_CHARACTERS


def test_its_name_is_its_own_for_ever_and_no_other_events() -> None:
    name = event_name(DRIFT)
    assert re.fullmatch(r"cart\.[0-9a-f]{16}", name)
    assert event_name(AGAIN) == name
    others = (
        replace(DRIFT, uid="u-2"), replace(DRIFT, reason=Reason.HEALED), replace(DRIFT, first_s=BEGAN_S + 60),
    )  # fmt: skip
    assert len({name, *map(event_name, others)}) == 4
    longest = event_name(replace(DRIFT, pod="a" * 235 + "." + "b" * 17))
    assert len(longest) <= 253
    assert ".." not in longest


def test_another_sighting_changes_how_often_when_and_what_was_said_last() -> None:
    assert event_patch(AGAIN) == {
        "count": 2, "lastTimestamp": "2023-11-14T22:13:25Z", "message": "swapped", "type": "Warning",
    }  # fmt: skip


def _due(book: EventBook, now_s: float) -> list[Waiting]:
    return book.due(now_s, BEGAN_S + now_s)


def test_an_event_is_written_when_it_is_new_and_once_more_when_its_minute_is_over() -> None:
    book = EventBook()
    book.heard(DRIFT)
    (new,) = _due(book, 0.0)
    assert not new.made
    book.written(new, 0.1)
    for second in range(1, 50):
        book.heard(replace(AGAIN, count=second + 1, last_s=BEGAN_S + second))
        assert _due(book, float(second)) == []
    (again,) = _due(book, 60.2)
    assert (again.made, again.event.count) == (True, 50)
    book.written(again, 60.3)
    assert _due(book, 200.0) == []


def test_what_is_seen_while_it_is_being_written_is_not_lost() -> None:
    book = EventBook()
    book.heard(DRIFT)
    (new,) = _due(book, 0.0)
    book.heard(AGAIN)
    book.written(new, 0.2)
    assert _due(book, 1.0) == []
    assert [one.event for one in _due(book, 61.0)] == [AGAIN]


def test_one_whose_answer_was_lost_is_changed_and_one_that_has_gone_is_made_again() -> None:
    book = EventBook()
    book.heard(DRIFT)
    (new,) = _due(book, 0.0)
    book.is_made(new, True)
    (made,) = _due(book, 0.0)
    assert made.made
    book.is_made(made, False)
    assert not _due(book, 0.0)[0].made


def test_an_hour_without_an_api_server_holds_no_more_than_so_many_and_drops_the_oldest() -> None:
    book = EventBook(capacity=10)
    for number in range(25):
        book.heard(replace(DRIFT, uid=f"u-{number}"))
    kept = _due(book, 1.0)
    assert [one.event.uid for one in kept] == [f"u-{number}" for number in range(15, 25)]
    assert book.dropped == 15
    assert book.due(KEPT_S + 1, BEGAN_S + KEPT_S + 1) == []  # the server would not keep it either
    assert book.dropped == 25
    book.failed(kept[0], 1.0, 0.0)  # what has been dropped meanwhile stays dropped
    book.is_made(kept[0], True)
    assert _due(book, 1.0) == []


def test_what_cannot_be_written_now_waits() -> None:
    book = EventBook()
    book.heard(DRIFT)
    (new,) = _due(book, 0.0)
    book.failed(new, 0.0, 0.0, wanted_s=7.0)
    assert _due(book, 6.9) == []
    assert len(_due(book, 7.1)) == 1
    book.refused(new)
    assert _due(book, 100.0) == []
