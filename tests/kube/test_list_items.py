"""A list read as it arrives gives the same items however it is cut."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kube.list_items import ListItems, NoList

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=4)


def read(text: str, cuts: list[int]) -> tuple[list[Any], ListItems]:
    page, found, begin = ListItems(), [], 0
    for end in (*sorted(cut % (len(text) + 1) for cut in cuts), len(text)):
        found += page.feed(text[begin:end])
        begin = end
    return found, page


@given(items=st.lists(objects, max_size=5), cuts=st.lists(st.integers(0, 10_000), max_size=12), first=st.booleans())
def test_items_and_version_are_those_of_the_whole(items: list[Any], cuts: list[int], first: bool) -> None:
    metadata = {"metadata": {"resourceVersion": "7", "continue": "next"}}
    body = {"kind": "PodList", **(metadata if first else {}), "items": items, **({} if first else metadata)}
    found, page = read(json.dumps(body), cuts)
    assert found == items
    assert (page.done, page.version, page.more, page.kind) == (True, "7", "next", "PodList")


@given(items=st.lists(objects, min_size=1, max_size=3), cut=st.integers(0, 10_000))
def test_a_list_that_is_cut_short_is_never_done(items: list[Any], cut: int) -> None:
    text = json.dumps({"kind": "PodList", "items": items, "metadata": {"resourceVersion": "7"}})
    found, page = read(text[: cut % len(text)], [])
    assert not page.done
    assert found == items[: len(found)]


def test_a_list_of_nothing_has_null_for_items() -> None:
    found, page = read('{"items": null, "metadata": {"resourceVersion": "7"}}', [])
    assert (found, page.done, page.version) == ([], True, "7")


@pytest.mark.parametrize("text", ["[]", '{"items": [1]}', "{1: 2}", '{"items": [' + "[" * 100_000])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(NoList):
        read(text, [])
