"""What an operator reads of a rejected object."""

from proxy.config.text import printable, quoted, render_rejection
from proxy.model.snapshot import Rejection
from tests.unit.proxy_config.samples import MESH, compiled, split


def test_a_rejection_as_an_operator_reads_it() -> None:
    rejections = compiled(*MESH, split(90, '"10"')).rejections
    assert [render_rejection(rejection) for rejection in rejections] == [
        'VirtualService default/reviews: spec.http[0].route[1].weight: must be a whole number, not text "10"; '
        "write it without quotes or fraction (f5.yaml:1)"
    ]


def test_a_stale_rejection_says_what_is_in_force() -> None:
    rejection = Rejection("file a.yaml", "line 3", "not YAML", stale=True)
    assert render_rejection(rejection) == "file a.yaml: line 3: not YAML; its last good version stays in force"


def test_an_empty_field_is_left_out() -> None:
    assert render_rejection(Rejection("directory d", "", "gone")) == "directory d: gone"


def test_terminal_escapes_line_ends_and_bidirectional_marks_are_shown_not_obeyed() -> None:
    assert printable("a\x1b[31m\r\n\u202e\u2028é😀\udc80\\") == r"a\x1b[31m\r\n\u202e\u2028\xe9\U0001f600\udc80" + "\\"


def test_a_hostile_field_name_reaches_nobody_raw() -> None:
    policy = compiled(*MESH, split(90, 10).replace("spec:\n", 'spec:\n  "\\e]0;x\\a\\n": 1\n'))
    (rejection,) = policy.rejections
    assert rejection.field == r"spec.\x1b]0;x\x07\n"
    refused = next(iter(policy.services.values())).refused
    assert refused.isascii()
    assert refused.isprintable()


def test_a_long_value_is_cut() -> None:
    assert quoted("x" * 1000) == f'text "{"x" * 80}..."'


def test_a_flood_in_a_field_name_is_cut() -> None:
    (rejection,) = compiled(*MESH, split(90, 10).replace("spec:\n", f"spec:\n  {'x' * 900}: 1\n")).rejections
    assert rejection.field == "spec." + "x" * 295
