"""YAML as the agent passes it on: the values that the proxy's own reader would see, and nothing that could hurt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.manifests import MAX_DEPTH, InvalidManifest, objects_in
from proxy.api.stream import ObjectName
from proxy.config import manifest

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n"
ROUTE = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\n"


def test_objects_are_named_and_passed_on_as_they_are() -> None:
    found = list(objects_in(POD + "unknown: [1, {a: b}]\n---\n" + ROUTE))
    assert found == [
        (
            ObjectName("", "Pod", "default", "web"),
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "unknown": [1, {"a": "b"}]},
        ),
        (
            ObjectName("networking.istio.io", "VirtualService", "shop", "web"),
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "web", "namespace": "shop"},
            },
        ),
    ]


def test_a_list_is_its_items() -> None:
    items = "".join(f"- {{apiVersion: v1, kind: Pod, metadata: {{name: p{n}}}}}\n" for n in range(3))
    names = [name.name for name, _ in objects_in("apiVersion: v1\nkind: List\nitems:\n" + items)]
    assert names == ["p0", "p1", "p2"]


@pytest.mark.parametrize("empty", ["", "---\n", "# nothing\n", "---\n---\n"])
def test_empty_documents_are_none(empty: str) -> None:
    assert list(objects_in(empty)) == []


@pytest.mark.parametrize(
    "value",
    [
        *(
            "on",
            "No",
            "~",
            "null",
            "",
            "0",
            "012",
            "0x1f",
            "1:30",
            "1_000",
            "-5",
            "1.5",
            "1e3",
            ".5",
            "1.",
            "1e",
            "9" * 30,
        ),
        *(
            "2026-01-31T12:00:00Z",
            "2026-01-31",
            "'80'",
            '"on"',
            "!!str 80",
            "! 80",
            "text",
            "[a, 1]",
            "{on: off, 80: x}",
        ),
    ],
)
def test_a_value_means_what_it_means_to_the_proxy(value: str) -> None:
    """A file moves from the proxy's directory to the agent's, and says the same."""
    text = f"{POD}spec: {value}\n"
    ((_, body),) = objects_in(text)
    (document,) = manifest.documents(text)
    assert body == document.value
    assert json.loads(json.dumps(body)) == body


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "no YAML"),
        ("a: \x00", "no YAML"),
        ("just text", "no mapping"),
        ("kind: Pod\nmetadata: {name: a}", "apiVersion"),
        ("apiVersion: v1\nmetadata: {name: a}", "kind"),
        ("apiVersion: v1\nkind: Pod", "metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}", "metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: [b]}", "metadata.namespace"),
        (f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {'a' * 300}}}", "metadata.name"),
        (POD + "kind: Pod", "there twice"),
        (POD + "? [a]\n: b", "a key must be text"),
        (POD + "a: *b", "without an anchor"),
        (POD + "a: &b {c: *b}", "without an anchor"),
        (POD + "a: &b {c: d}\ne: {<<: *b}", "merge keys"),
        (POD + "a: !!python/object:os.system b", "tag"),
        (POD + "a: !!binary aaaa", "tag"),
        (POD + "a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ("[" * 100_000, "nested deeper"),
    ],
)
def test_what_cannot_be_passed_on_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidManifest, match=said):
        list(objects_in(text))


def test_aliases_are_what_they_stand_for_and_cannot_grow_without_end() -> None:
    ((_, body),) = objects_in(POD + "a: &x {b: c}\nd: *x\n")
    assert body["d"] == {"b": "c"}
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 1}]\n" for n in range(12))
    with pytest.raises(InvalidManifest, match="more than"):
        list(objects_in(POD + bomb))


@given(st.text(max_size=200))
def test_hostile_text_is_read_or_refused(text: str) -> None:
    try:
        for name, body in objects_in(text):
            assert name.name
            json.dumps(body)
    except InvalidManifest as error:
        assert str(error).isprintable()
