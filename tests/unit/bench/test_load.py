"""What wrk prints."""

import json

import pytest

from tests.bench.load import LoadFailed, LoadResult, parse

RESULT = {"requests": 5000, "duration_us": 2_000_000, "p50_us": 700, "p99_us": 1900}
NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}


def printed(**fields: int) -> str:
    line = json.dumps({**RESULT, **NO_ERRORS, **fields})
    return f"Running 2s test @ http://10.96.0.10:80/\n  1 threads and 32 connections\n{line}\n"


def test_the_scripts_line_is_found_among_wrks_own() -> None:
    assert parse(printed()) == LoadResult(5000, 2_000_000, 700, 1900)


def test_requests_per_second_are_of_the_time_that_really_passed() -> None:
    assert parse(printed(duration_us=2_500_000)).per_s == 2000


@pytest.mark.parametrize("kind", sorted(NO_ERRORS))
def test_a_single_failed_request_spoils_the_run(kind: str) -> None:
    with pytest.raises(LoadFailed, match=rf"5000 requests failed: \{{'{kind}': 1\}}"):
        parse(printed(**{kind: 1}))


def test_a_run_without_requests_is_none() -> None:
    with pytest.raises(LoadFailed):
        parse(printed(requests=0))


def test_output_without_a_result_is_told_with_its_end() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        parse("unable to connect to 10.96.0.10:80 Connection refused\n")
