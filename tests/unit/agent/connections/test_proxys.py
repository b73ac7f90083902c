"""The proxy's answer is read as a stranger's: what is no connection is counted, what is missing is said."""

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.connections import proxys
from agent.connections.values import Path, Way

LINE: dict[str, Any] = {
    "pod": "uid-1",
    "netns_cookie": 4711,
    "worker": 1,
    "worker_pid": 99,
    "direction": "outbound",
    "protocol": "http",
    "client": "10.0.0.5:4000",
    "listener": "[::1]:15001",
    "original_destination": "[fd96::10]:80",
    "upstream_from": None,
    "upstream": None,
    "service": "web",
    "route": "",
    "workload": "",
    "age_s": 1.5,
}
END = {"end": {"told": 1, "left_out": 0, "silent_workers": []}}


def read(*values: object) -> proxys.Told:
    return proxys.read(json.dumps(value).encode() for value in values)


def test_a_connection() -> None:
    told = read(LINE, END)
    assert told.problems == ()
    (one,) = told.connections
    assert (one.way, one.path, one.worker, one.netns_cookie) == (Way.OUTBOUND, Path.HTTP, 1, 4711)
    assert one.original == (ip_address("fd96::10"), 80)
    assert one.downstream_key == (ip_address("::1"), 15001, ip_address("10.0.0.5"), 4000)
    assert one.upstream_key is None


def test_what_is_missing_is_said() -> None:
    told = read(LINE, {"end": {"told": 1, "left_out": 12, "silent_workers": [0, 3]}})
    assert told.problems == (
        "the proxy left 12 connections out: ask pod by pod",
        "worker 0, 3 of the proxy did not answer: its connections are shown as `redirect`",
    )
    assert "broke off" in read(LINE).problems[0]


@pytest.mark.parametrize(
    "change",
    [
        {"client": "10.0.0.5"},
        {"client": "10.0.0.5:99999"},
        {"client": "x:80"},
        {"client": 80},
        {"original_destination": None},
        {"direction": "sideways"},
        {"protocol": "direct"},
        {"netns_cookie": "x"},
        {"service": 1},
        {"age_s": "long"},
    ],
)
def test_a_line_that_is_no_connection_is_counted_and_the_others_are_shown(change: dict[str, object]) -> None:
    told = read({**LINE, **change}, LINE, END)
    assert len(told.connections) == 1
    assert told.problems == ("1 lines of the proxy's answer cannot be read: is it another version?",)


@given(
    st.lists(
        st.binary(max_size=60)
        | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps).map(str.encode)
    )
)
def test_no_answer_is_a_failure(lines: list[bytes]) -> None:
    assert proxys.read(lines).connections == ()


def test_without_a_proxy_there_is_a_problem_and_no_failure(tmp_path: FilePath) -> None:
    told = proxys.ask(tmp_path)
    assert told.connections == () and "no proxy at" in told.problems[0] and "--run-dir" in told.problems[0]


def test_a_proxy_that_is_not_ours_to_ask_is_a_problem(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: FilePath) -> Iterator[None]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(proxys, "_connect", refused)
    assert "Permission denied" in proxys.ask(tmp_path).problems[0]
