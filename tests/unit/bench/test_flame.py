"""`make profile`: which rows can be profiled, and what is said of the others."""

import pytest

from tests.bench.flame import main


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("haproxy", "haproxy is no row of headgate"),
        ("headgate-http-mix", "small requests"),
        ("nothing", "no row 'nothing'"),
    ],
)
def test_what_is_no_row_of_headgate_is_refused_before_anything_is_built(
    rows: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--rows", rows]) == 2
    assert named in capsys.readouterr().err
