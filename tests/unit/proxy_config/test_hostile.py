"""Whatever a file holds: a set of objects and problems, a snapshot, never an exception."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.admission import admit
from proxy.config.compile import compile_policy
from proxy.config.directory import ObjectDirectory
from proxy.config.manifest import documents
from proxy.config.objects import RawObject
from proxy.config.text import render_rejection
from tests.unit.proxy_config.samples import MESH, RATINGS, raws, split

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70000),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["v1", "*", "a.b"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
OBJECTS = raws(*MESH, RATINGS, split(90, 10))


def paths(value: object) -> list[list[str | int]]:
    """Where the values inside `value` are."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [[key, *rest] for key, inner in items for rest in ([], *paths(inner))]


def altered(value: object, path: list[str | int], new: object) -> object:
    if not path:
        return new
    if isinstance(value, dict):
        return {key: altered(inner, path[1:], new) if key == path[0] else inner for key, inner in value.items()}
    assert isinstance(value, list)
    return [altered(inner, path[1:], new) if i == path[0] else inner for i, inner in enumerate(value)]


@st.composite
def object_sets(draw: st.DrawFn) -> list[RawObject]:
    """The sample objects with one value anywhere replaced by any other."""
    found = list(OBJECTS)
    at = draw(st.integers(0, len(found) - 1))
    raw = found[at]
    body = altered(raw.body, draw(st.sampled_from(paths(raw.body))), draw(VALUES))
    assert isinstance(body, dict)
    found[at] = RawObject(raw.key, raw.version, raw.created, body, raw.source)
    return found


@settings(max_examples=400, deadline=None)
@given(object_sets())
def test_any_value_anywhere_gives_a_snapshot_and_printable_rejections(found: list[RawObject]) -> None:
    good = admit(OBJECTS)
    for previous, before in ((None, None), (good, compile_policy(good, None))):
        policy = compile_policy(admit(found, (), previous), before)
        assert all(port.rules and port.refused.isascii() for port in policy.services.values())
        for rejection in policy.rejections:
            line = render_rejection(rejection)
            assert line.isascii()
            assert line.isprintable()


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_any_bytes_in_a_file_leave_the_others(content: bytes) -> None:
    with TemporaryDirectory() as name:
        (Path(name) / "a.yaml").write_bytes(content)
        (Path(name) / "b.yaml").write_text("---\n".join(MESH))
        found = ObjectDirectory(name, settle_s=0).read()
    assert len(found.admitted) >= len(OBJECTS) - 2
    compile_policy(found, None)


def test_the_alterations_reach_every_field() -> None:
    (document,) = documents(split(90, 10))
    assert ["spec", "http", 0, "route", 1, "destination", "subset"] in paths(document.value)
