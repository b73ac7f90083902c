"""Pods of a file and of a directory of names, as they come, change and go. A link to /proc/self/ns/net stands in for a
namespace: the source looks at nothing but its identity."""

import asyncio
import logging
from pathlib import Path

import pytest

from agent.kernel.netns import host_netns_id
from agent.sources.events import PodChanged, PodGone, PodSeen, SourceEvent
from agent.sources.netns import NetnsSource


@pytest.fixture
def names(tmp_path: Path) -> Path:
    directory = tmp_path / "netns"
    directory.mkdir()
    return directory


@pytest.fixture
def pods_file(tmp_path: Path) -> Path:
    return tmp_path / "pods.yaml"


def make(names: Path, *wanted: str) -> None:
    for name in wanted:
        (names / name).symlink_to("/proc/self/ns/net")


def write(path: Path, text: str) -> None:
    """In one step, as an operator's editor does; another inode, so that equal times do not hide the change."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def told(events: list[SourceEvent]) -> list[str]:
    return [f"{type(event).__name__} {event.uid if isinstance(event, PodGone) else event.pod}" for event in events]


def test_every_name_in_the_directory_is_a_pod(names: Path) -> None:
    make(names, "web", "client")
    source = NetnsSource(None, names)
    first = source.look()
    assert told(first) == ["PodSeen default/client", "PodSeen default/web"]
    assert isinstance(first[0], PodSeen)
    assert (first[0].netns_path, first[0].netns_id) == (str(names / "client"), host_netns_id())
    assert source.look() == []


def test_name_that_vanishes_is_a_pod_gone(names: Path) -> None:
    make(names, "web")
    source = NetnsSource(None, names)
    (seen,) = source.look()
    (names / "web").unlink()
    assert isinstance(seen, PodSeen)
    assert source.look() == [PodGone(seen.pod.uid)]


def test_file_that_is_no_namespace_yet_is_no_pod_yet(names: Path) -> None:
    (names / "web").write_text("")
    source = NetnsSource(None, names)
    assert source.look() == []
    (names / "web").unlink()
    make(names, "web")
    assert told(source.look()) == ["PodSeen default/web"]


def test_name_that_can_be_no_pods_is_told_once(names: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(names, "Bad_Name\x1b", "web")
    source = NetnsSource(None, names)
    with caplog.at_level(logging.WARNING):
        assert told(source.look()) == ["PodSeen default/web"]
        source.look()
    assert len(caplog.messages) == 1
    assert "Bad_Name\\x1b: name:" in caplog.messages[0] and "list it in a pods file" in caplog.messages[0]


def test_missing_directory_is_empty(tmp_path: Path) -> None:
    assert NetnsSource(None, tmp_path / "none").look() == []


def test_file_is_read_again_when_it_changed(names: Path, pods_file: Path) -> None:
    make(names, "a", "b", "c")
    write(pods_file, "pods: [{name: a, netns: a, uid: ua}, {name: b, netns: b, uid: ub}]")
    source = NetnsSource(pods_file, names)
    assert told(source.look()) == ["PodSeen default/a", "PodSeen default/b"]
    write(pods_file, "pods: [{name: a, netns: a, uid: ua, labels: {x: y}}, {name: c, netns: c, uid: uc}]")
    events = source.look()
    assert told(events) == ["PodGone ub", "PodChanged default/a", "PodSeen default/c"]
    assert isinstance(events[1], PodChanged) and events[1].pod.labels == (("x", "y"),)
    assert source.look() == []


def test_order_of_entries_is_no_change(names: Path, pods_file: Path) -> None:
    make(names, "a", "b")
    write(pods_file, "pods: [{name: a, netns: a}, {name: b, netns: b}]")
    source = NetnsSource(pods_file, names)
    source.look()
    write(pods_file, "pods: [{name: b, netns: b}, {name: a, netns: a}]")
    assert source.look() == []


@pytest.mark.parametrize("broken", ["pods: [", "more: 1", "pods: 5", "\x00"])
def test_malformed_file_keeps_the_last_good_list(names: Path, pods_file: Path, broken: str) -> None:
    make(names, "a", "b")
    write(pods_file, "pods: [{name: a, netns: a}]")
    source = NetnsSource(pods_file, names)
    source.look()
    write(pods_file, broken)
    assert source.look() == []
    (problem,) = source.problems
    assert problem.startswith(f"{pods_file}: ") and "the last good list of 1 pods stays" in problem
    write(pods_file, "pods: [{name: b, netns: b}]")
    assert [line.split()[0] for line in told(source.look())] == ["PodGone", "PodSeen"]
    assert source.problems == ()


def test_bytes_that_are_no_text_keep_the_last_good_list(names: Path, pods_file: Path) -> None:
    make(names, "a")
    write(pods_file, "pods: [{name: a, netns: a}]")
    source = NetnsSource(pods_file, names)
    source.look()
    pods_file.write_bytes(b"pods: \xff\xfe\xfd and more")
    assert source.look() == []
    assert "stays" in source.problems[0]


def test_missing_file_keeps_the_last_good_list_and_is_read_when_it_is_back(names: Path, pods_file: Path) -> None:
    make(names, "a", "b")
    source = NetnsSource(pods_file, names)
    assert source.look() == []
    assert source.problems == (f"{pods_file}: is not there; no pod is known from it yet",)
    write(pods_file, "pods: [{name: a, netns: a}]")
    assert told(source.look()) == ["PodSeen default/a"]
    pods_file.unlink()
    assert source.look() == []
    write(pods_file, "pods: [{name: a, netns: a}, {name: b, netns: b}]")
    assert told(source.look()) == ["PodSeen default/b"]


def test_entry_that_became_wrong_keeps_its_last_good_form(names: Path, pods_file: Path) -> None:
    make(names, "a", "b")
    write(pods_file, "pods: [{name: a, netns: a, uid: ua}, {name: b, netns: b, uid: ub}]")
    source = NetnsSource(pods_file, names)
    source.look()
    write(pods_file, "pods: [{name: a, netns: a, uid: ua, labels: oops}, {name: b, netns: b, uid: ub}]")
    assert source.look() == []
    assert source.problems == (f"{pods_file}: pod 1 (default/a): labels: must be a mapping of text to text",)
    write(pods_file, "pods: [{name: b, netns: b, uid: ub}]")
    assert source.look() == [PodGone("ua")]


def test_wrong_entry_does_not_keep_what_another_pod_took_over(names: Path, pods_file: Path) -> None:
    make(names, "a")
    write(pods_file, "pods: [{name: a, netns: a, uid: ua}]")
    source = NetnsSource(pods_file, names)
    source.look()
    write(pods_file, "pods: [{name: a}, {name: b, netns: a, uid: ub}]")
    assert told(source.look()) == ["PodGone ua", "PodSeen default/b"]


def test_iteration_tells_the_first_pods_and_later_changes(names: Path) -> None:
    make(names, "a")

    async def run() -> list[str]:
        heard: list[SourceEvent] = []
        async for event in NetnsSource(None, names, look_every_s=0.01):
            heard.append(event)
            if len(heard) == 1:
                make(names, "b")
            elif len(heard) == 2:
                (names / "a").unlink()
            else:
                break
        return told(heard)

    first, second, third = asyncio.run(asyncio.wait_for(run(), 10))
    assert (first, second) == ("PodSeen default/a", "PodSeen default/b")
    assert third.startswith("PodGone")


def test_b48_successor_with_the_number_of_the_former_is_gone_and_seen(
    names: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives a freed number out again; device and inode alone would take the new one's rules for installed.
    A plain file stands in: its device is called the namespaces' own, its number stays and its time changes."""
    monkeypatch.setattr("agent.sources.netns._OWN_NETNS", names)
    (names / "web").write_text("")
    source = NetnsSource(None, names)
    (seen,) = source.look()
    assert isinstance(seen, PodSeen)
    assert source.look() == []
    born = (names / "web").stat().st_ctime_ns
    while (names / "web").stat().st_ctime_ns == born:  # the file system's clock ticks every few milliseconds
        (names / "web").chmod(0o600)
    assert source.look() == [PodGone(seen.pod.uid), seen]
    assert source.look() == []
