"""YAML in, values out; and what a hostile file may not do."""

import pytest

from proxy.config import manifest
from proxy.config.fields import InvalidPolicy
from proxy.config.manifest import Document, InvalidManifest, documents, raw_objects


def values(text: str) -> list[object]:
    return [document.value for document in documents(text)]


def invalid(text: str) -> InvalidManifest:
    with pytest.raises(InvalidManifest) as caught:
        values(text)
    return caught.value


def test_scalars_are_read_as_kubernetes_reads_them() -> None:
    text = "{a: 1, b: '1', c: true, d: yes, e: ~, f: 1.5, g: 2e3, h: -4, i: v1, j: !!str 7, k: ! 8, l: }"
    assert values(text) == [
        {
            **{"a": 1, "b": "1", "c": True, "d": True, "e": None, "f": 1.5, "g": 2000.0, "h": -4},
            **{"i": "v1", "j": "7", "k": "8", "l": None},
        }
    ]


@pytest.mark.parametrize("text", ["1:30", "0x10", "010", "1_000", "2026-01-31T12:00:00Z", "9" * 5000, ".inf"])
def test_words_that_yaml_1_1_turns_into_surprising_values_stay_text(text: str) -> None:
    assert values(f"a: {text}") == [{"a": text}]


def test_keys_are_text_as_written() -> None:
    assert values("{on: 1, 80: 2, null: 3}") == [{"on": 1, "80": 2, "null": 3}]


def test_documents_come_with_the_line_of_their_content_and_empty_ones_are_left_out() -> None:
    found = list(documents("# nothing\n---\n\na: 1\n---\n---\n- b\n"))
    assert found == [Document({"a": 1}, 4), Document(["b"], 7)]


def test_an_alias_repeats_what_its_anchor_marked() -> None:
    assert values("a: &x {k: [1]}\nb: *x\nc: &y text\nd: *y") == [
        {"a": {"k": [1]}, "b": {"k": [1]}, "c": "text", "d": "text"}
    ]


def test_anchors_end_with_their_document() -> None:
    assert "no anchor" in invalid("a: &x 1\n---\nb: *x\n").reason


def test_an_alias_inside_its_own_anchor_would_be_a_cycle() -> None:
    assert "no anchor" in invalid("a: &x [*x]").reason


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("a: [1\nb: 2\n", 2, 2, "did not find expected ',' or ']'"),
        ("a: 1\na: 2\n", 2, 1, 'key text "a" is there twice'),
        ("? [x]\n: 1\n", 1, 3, "a key must be text, not a list"),
        ("a:\n  <<: {b: 1}\n", 2, 3, "merge keys (<<) are not supported"),
        ("a: !!python/object:os.system {}\n", 1, 4, 'tag text "tag:yaml.org,2002:python/object:os.system" is not'),
        ("a: !!int '7'\n", 1, 4, 'tag text "tag:yaml.org,2002:int" is not supported'),
        ("a: 1\nb: \x07\n", 2, 1, "character #x0007: control characters are not allowed"),
    ],
)
def test_an_error_names_line_and_column(text: str, line: int, column: int, reason: str) -> None:
    error = invalid(text)
    assert (error.line, error.column) == (line, column)
    assert error.reason.startswith(reason)


def test_documents_before_the_error_are_yielded() -> None:
    found = documents("a: 1\n---\nb: [\n")
    assert next(found).value == {"a": 1}
    with pytest.raises(InvalidManifest):
        next(found)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_is_bounded_without_recursion(opening: str) -> None:
    assert invalid(opening * 100_000).reason == "nested deeper than 64"


def test_an_alias_counts_at_its_full_size_so_that_a_billion_laughs_fail_early() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    error = invalid("\n".join(lines))
    assert error.reason == f"more than {manifest.MAX_NODES} values in one file"
    assert error.line < 9


def test_the_limit_of_values_spans_the_documents_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_NODES", 10)
    assert len(values("- 1\n- 2\n---\n- 3\n")) == 2
    assert "more than 10" in invalid("- 1\n" * 5 + "---\n" + "- 2\n" * 5).reason


def test_a_list_stands_for_its_items() -> None:
    text = """
    {apiVersion: v1, kind: List, items: [
      {apiVersion: v1, kind: Pod, metadata: {name: a}},
      {apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: x}}]}
    """
    keys = [item.key for document in documents(text) for item in raw_objects(document.value, "s") if not _bad(item)]
    assert keys == [("", "Pod", "default", "a"), ("apps", "Deployment", "x", "b")]


def test_a_malformed_item_of_a_list_leaves_the_others() -> None:
    text = "{apiVersion: v1, kind: PodList, items: [{kind: Pod}, {apiVersion: v1, kind: Pod, metadata: {name: a}}]}"
    bad, good = [item for document in documents(text) for item in raw_objects(document.value, "f.yaml:1")]
    assert isinstance(bad, InvalidPolicy)
    assert (bad.owner, bad.field, bad.reason) == ("object at f.yaml:1 items[0]", "apiVersion", "is missing")
    assert not isinstance(good, InvalidPolicy)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[]", ""),
        ("just text", ""),
        ("{apiVersion: v1, metadata: {name: a}}", "kind"),
        ("{apiVersion: v1, kind: 5, metadata: {name: a}}", "kind"),
        ('{apiVersion: v1, kind: "Po\\nd", metadata: {name: a}}', "kind"),
        ("{apiVersion: v1, kind: Pod}", "metadata"),
        ("{apiVersion: v1, kind: Pod, metadata: {}}", "metadata.name"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: 12}}", "metadata.name"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: ../etc}}", "metadata.name"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: A}}", "metadata.namespace"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a, creationTimestamp: now}}", "metadata.creationTimestamp"),
    ],
)
def test_what_is_no_kubernetes_object_says_which_field(text: str, field: str) -> None:
    (found,) = raw_objects(values(text)[0], "f.yaml:1")
    assert isinstance(found, InvalidPolicy)
    assert found.field == field


def _bad(item: object) -> bool:
    return isinstance(item, InvalidPolicy)
