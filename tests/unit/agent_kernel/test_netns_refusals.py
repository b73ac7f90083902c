"""Which paths are no network namespace of a pod, and what is said of them (B47)."""

import os
from pathlib import Path

import pytest

from agent.kernel.netns import NetnsRefused, host_netns_id, open_netns
from agent.pods import NetnsId


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refusal(path: Path | str, expected: NetnsId | None = None, *, allow_own: bool = False) -> str:
    before = open_descriptors()
    with pytest.raises(NetnsRefused) as caught:
        open_netns(path, expected, allow_own=allow_own)
    assert open_descriptors() == before
    return str(caught.value)


def test_b47_the_nodes_own_namespace_is_refused() -> None:
    assert "is the agent's own, the node's" in refusal("/proc/self/ns/net")


def test_b47_another_namespace_than_the_one_decided_upon_is_refused() -> None:
    said = refusal("/proc/self/ns/net", NetnsId(4, 1), allow_own=True)
    assert f"is {host_netns_id()} now, 4:1 was meant" in said


def test_namespace_of_another_kind_is_refused() -> None:
    assert "of another kind than network" in refusal("/proc/self/ns/uts")


def test_file_that_is_no_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "no namespace file" in refusal(tmp_path / "file")
    assert "a directory" in refusal(tmp_path)


def test_fifo_does_not_hold_the_agent_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "no namespace file" in refusal(tmp_path / "fifo")


def test_missing_path_is_told_as_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_netns(tmp_path / "gone")


def test_hostile_path_is_printed_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\nb"
    path.write_text("")
    assert "a\\x1b[2J\\nb" in refusal(path)


def test_own_namespace_opens_when_asked_for_and_closes_once() -> None:
    before = open_descriptors()
    with open_netns("/proc/self/ns/net", allow_own=True) as own:
        assert own.id == host_netns_id()
        own.close()
    assert open_descriptors() == before
