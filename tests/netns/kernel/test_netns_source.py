"""The source over real named namespaces (bind mounts, as ip-netns(8) makes them)."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.pods import NetnsId
from agent.sources.events import PodChanged, PodGone, PodSeen
from agent.sources.netns import NetnsSource
from tests.netns.kernel.scratch import Scratch


class Names:
    """A directory of named namespaces."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mounted: set[str] = set()

    def add(self, name: str) -> NetnsId:
        """Makes the namespace and lets go of every descriptor: the mount alone keeps it."""
        with Scratch() as scratch:
            (self.directory / name).touch()
            subprocess.run(["mount", "--bind", scratch.path, str(self.directory / name)], check=True)
            self.mounted.add(name)
            return scratch.identity

    def delete(self, name: str) -> None:
        subprocess.run(["umount", str(self.directory / name)], check=True)
        self.mounted.discard(name)
        (self.directory / name).unlink()


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    made = Names(tmp_path)
    with ExitStack() as stack:
        stack.callback(lambda: [made.delete(name) for name in sorted(made.mounted)])
        yield made


def test_name_is_seen_once_mounted_and_gone_when_deleted(names: Names) -> None:
    source = NetnsSource(None, names.directory)
    (names.directory / "web").touch()
    assert source.look() == []
    identity = names.add("web")
    (seen,) = source.look()
    assert isinstance(seen, PodSeen)
    assert (seen.pod.name, seen.netns_path, seen.netns_id) == ("web", str(names.directory / "web"), identity)
    assert source.look() == []
    names.delete("web")
    assert source.look() == [PodGone(seen.pod.uid)]


def test_b48_name_made_anew_between_two_looks_is_another_namespace_of_the_same_pod(names: Names) -> None:
    source = NetnsSource(None, names.directory)
    names.add("web")
    (seen,) = source.look()
    assert isinstance(seen, PodSeen)
    with Scratch():  # takes the next free number
        names.delete("web")
        identity = names.add("web")
    events = source.look()
    assert identity != seen.netns_id
    assert events == [PodChanged(seen.pod, seen.netns_path, identity)]


def test_b48_time_of_birth_tells_a_namespace_from_its_successor_and_stays_while_it_lives(names: Names) -> None:
    """What the source tells them apart by when the kernel gives the freed number out again."""
    names.add("web")
    path = names.directory / "web"
    born = path.stat().st_ctime_ns
    subprocess.run(["nsenter", f"--net={path}", "ip", "link", "set", "lo", "up"], check=True)
    assert path.stat().st_ctime_ns == born
    names.delete("web")
    names.add("web")
    assert path.stat().st_ctime_ns > born
