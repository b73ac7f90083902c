"""A map that never changes: any course of drafts amounts to what a dict would hold, and no earlier one is touched."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.model.paged_map import Draft, PagedMap

KEYS = st.integers(0, 700)  # several a page, and some pages without
CHANGES = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers(0, 3))), max_size=40)


@given(st.lists(CHANGES, max_size=6))
def test_any_course_of_drafts_is_that_of_a_dict(drafts: list[list[tuple[int, int | None]]]) -> None:
    known: PagedMap[int, int] = PagedMap()
    model: dict[int, int] = {}
    earlier: list[tuple[PagedMap[int, int], dict[int, int]]] = []
    for changes in drafts:
        earlier.append((known, model.copy()))
        draft = Draft(known)
        for key, value in changes:
            if value is None:
                draft.drop(key)
                model.pop(key, None)
            else:
                draft.put(key, value)
                model[key] = value
        known = draft.done()
        earlier.append((known, model.copy()))
        draft.put(-1, 0)  # whoever goes on with a draft that is done changes nothing that was given out
    for held, meant in earlier:
        assert dict(held.items()) == meant == held
        assert len(held) == len(meant)
        assert all((key in held, held.get(key, "no")) == (key in meant, meant.get(key, "no")) for key in range(-1, 702))


def test_a_successor_shares_every_page_that_did_not_change() -> None:
    first = Draft(PagedMap[int, int]())
    for key in range(20_000):
        first.put(key, key)
    before = first.done()
    second = Draft(before)
    second.put(5, 0)
    after = second.done()
    differing = [a for a, b in zip(before._pages, after._pages, strict=True) if a is not b]
    assert len(differing) == 1
    assert (before[5], after[5], len(after)) == (5, 0, 20_000)
