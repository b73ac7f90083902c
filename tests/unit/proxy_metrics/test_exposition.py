"""proxy.exposition: text that prometheus_client's own parser reads back as it was meant."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.exposition import counter, gauge, histogram, label_text

LABEL_VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(LABEL_VALUES, min_size=1, max_size=4, unique=True))
def test_label_values_survive_whatever_they_hold(values: list[str]) -> None:
    lines = gauge("some_gauge", "Text.", ((label_text(("a", "b"), (value, "x")), 1) for value in values))
    (family,) = text_string_to_metric_families("".join(lines))
    assert [sample.labels["a"] for sample in family.samples] == values


@given(st.one_of(st.integers(min_value=0, max_value=2**80), st.floats(min_value=0, allow_infinity=False)))
def test_numbers_survive(value: float) -> None:
    (family,) = text_string_to_metric_families("".join(counter("some", "Text.", [("", value)])))
    assert family.samples[0].value == value


def test_a_histogram_ends_with_its_sum_and_count() -> None:
    lines = histogram("h", "Text.", ("1", "+Inf"), [('a="b"', [2, 3], 4.5), ("", [0, 0], 0)])
    assert "".join(lines) == (
        "# HELP h Text.\n"
        "# TYPE h histogram\n"
        'h_bucket{a="b",le="1"} 2\n'
        'h_bucket{a="b",le="+Inf"} 3\n'
        'h_sum{a="b"} 4.5\n'
        'h_count{a="b"} 3\n'
        'h_bucket{le="1"} 0\n'
        'h_bucket{le="+Inf"} 0\n'
        "h_sum 0\n"
        "h_count 0\n"
    )
