"""Whatever stands in a listing: rules are read without an exception, shown without an escape sequence, and what is not
understood is not taken for something else."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.explain.nft_json import tables
from agent.explain.nft_values import NUMBER, constant, span
from agent.explain.statements import Perhaps, Unread
from agent.explain.words import in_words
from tests.unit.agent.explain.nft_listing import document, listing, rule

WORDS = sorted({word for one in listing()[1].values() for word in json.dumps(one.expr).split('"')[1::2]})
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-1, 1 << 130), st.text(max_size=8), st.sampled_from(WORDS))
KEYS = st.one_of(st.sampled_from(WORDS), st.text(max_size=3))
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
RECORDED = st.sampled_from([one.expr for one in listing()[1].values()])


@given(st.lists(JSON, max_size=3))
def test_any_statement_is_read_or_left_open(expr: list[Any]) -> None:
    read_and_shown(expr)


@given(RECORDED, st.data())
def test_a_rule_with_any_part_of_it_replaced_is_read_or_left_open(expr: list[Any], data: st.DataObject) -> None:
    read_and_shown([with_another_part(one, data) for one in expr])


def with_another_part(raw: Any, data: st.DataObject) -> Any:
    if data.draw(st.integers(0, 5)) == 0:
        return data.draw(JSON)
    if isinstance(raw, dict) and raw:
        at = data.draw(st.sampled_from(sorted(raw)))
        return raw | {at: with_another_part(raw[at], data)}
    if isinstance(raw, list) and raw:
        number = data.draw(st.integers(0, len(raw) - 1))
        return [*raw[:number], with_another_part(raw[number], data), *raw[number + 1 :]]
    return raw


def read_and_shown(expr: list[Any]) -> None:
    (table,) = tables(document(rule(*expr)))
    (found,) = table.chains["c"].rules
    assert in_words(found).isprintable()
    for statement in found.statements:
        if isinstance(statement, Perhaps | Unread):
            assert statement.what.text.isprintable() and len(statement.what.text) <= 200


@given(JSON)
def test_any_set_is_read_or_not_there(elem: Any) -> None:
    listed = {"set": {"family": "inet", "table": "t", "name": "s", "type": ["mark", "ipv4_addr"], "elem": elem}}
    (table,) = tables(document(listed))
    assert set(table.sets) <= {"s"}


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_document_is_read_or_refused(before: str, after: str) -> None:
    text = document(rule({"accept": None}))
    for one in (before, before + text, text[: len(before)] + after):
        try:
            tables(one)
        except ValueError as error:
            assert str(error).isprintable()


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 32))
def test_a_prefix_spans_all_numbers_that_begin_so_and_no_other(address: int, length: int) -> None:
    found = span({"prefix": {"addr": address, "len": length}}, NUMBER)
    assert isinstance(found.first, int) and isinstance(found.last, int)
    assert found.first <= address <= found.last and found.last - found.first + 1 == 1 << (32 - length)
    assert found.first >> (32 - length) == found.last >> (32 - length)


@given(st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=4))
def test_flags_in_a_row_are_one_number(bits: list[int]) -> None:
    wanted = 0
    for bit in bits:
        wanted |= bit
    assert constant(bits, NUMBER) == constant({"|": bits}, NUMBER) == wanted
