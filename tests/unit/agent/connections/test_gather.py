"""What is read at several moments and places is put together, and what went meanwhile is no failure."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path as FilePath
from typing import Any

import pytest

from agent.connections import gather, proxys, read
from agent.connections.proxys import Told
from agent.connections.read import Reading
from agent.connections.values import Path, Process, Way
from agent.kernel.socket_owners import Owners, SocketOwner
from tests.unit.agent.connections.described import COOKIE, POD, Pod, commands

APP = f"{POD}:4000 > 10.96.0.10:80"
DOWN = f"127.0.0.1:15001 > {POD}:4000"


class Node:
    """Stands in for kernel and proxy: `pod` as it is, `told` by the proxy, and who holds what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pod = Pod()
        self.pod.holds(APP, "curl")
        self.pod.holds(DOWN, "headgate")
        self.pod.flow(APP, DOWN)
        self.told = Told()
        self.asked: list[int | None] = []
        self.refused, self.privileged = 0, True
        self.ended: set[int] = set()
        monkeypatch.setattr(read, "reading", self.reading)
        monkeypatch.setattr(read, "without_ended", self.without_ended)
        monkeypatch.setattr(read, "explained", lambda connections, reading: (connections, ()))
        monkeypatch.setattr(proxys, "ask", self.ask)
        monkeypatch.setattr(gather, "owners_of", self.owners)

    def reading(self, cookie: int | None = COOKIE) -> Reading:
        pod = self.pod
        interfaces = {ip_address(POD): "eth0"}
        return Reading(tuple(pod.sockets), tuple(pod.udp), tuple(pod.flows), {}, interfaces, cookie)

    def without_ended(self, reading: Reading) -> Reading:
        return replace(reading, tcp=tuple(held for held in reading.tcp if held.inode not in self.ended))

    def ask(self, run_dir: FilePath, cookie: int | None = None) -> Told:
        self.asked.append(cookie)
        return self.told

    def owners(self, inodes: set[int], proc: FilePath) -> Owners:
        found = {inode: SocketOwner(one.pid, one.command) for inode, one in self.pod.owners.items() if inode in inodes}
        return Owners(found, self.refused, self.privileged)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def test_one_namespace_asks_the_proxy_for_its_own_only(node: Node, tmp_path: FilePath) -> None:
    node.pod.tells(Way.OUTBOUND, Path.HTTP, "10.96.0.10:80", f"{POD}:4000", "127.0.0.1:15001")
    (own,) = node.pod.proxys
    node.told = Told((own, replace(own, netns_cookie=COOKIE + 1, path=Path.TCP)))
    found = gather.look("a/b", here, tmp_path)
    assert node.asked == [COOKIE]
    ((name, one),) = gather.all_connections(found)
    assert (name, one.path, commands(one)) == ("a/b", Path.HTTP, ("curl", None))
    assert found.problems == ()


def test_of_many_the_proxy_is_asked_once(node: Node, tmp_path: FilePath) -> None:
    found = gather.look_at_all([("a/b", here), ("a/c", here)], tmp_path)
    assert node.asked == [None]
    assert [name for name, _ in gather.all_connections(found)] == ["a/b", "a/c"]


def test_what_ended_before_the_proxy_was_asked_is_not_told(node: Node, tmp_path: FilePath) -> None:
    """Else each connection that ends at that moment would look like one that the proxy does not know."""
    node.ended = {held.inode for held in node.pod.sockets}
    assert list(gather.all_connections(gather.look("", here, tmp_path))) == []
    node.ended = set()
    ((_, one),) = gather.all_connections(gather.look("", here, tmp_path))
    assert one.path is Path.REDIRECT


def test_where_namespaces_have_no_cookie_the_proxy_is_not_asked(
    node: Node, tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "reading", lambda: node.reading(None))
    found = gather.look("", here, tmp_path)
    assert node.asked == [] and found.problems == (gather.NO_COOKIE,)


@pytest.mark.parametrize("at", [1, 2], ids=["before", "meanwhile"])
def test_a_pod_that_goes_is_a_problem_and_the_others_are_told(node: Node, tmp_path: FilePath, at: int) -> None:
    calls = 0

    def going(function: Callable[..., Any], *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise gather.Unreachable("network namespace /run/netns/x: No such file or directory")
        return function(*args)

    found = gather.look_at_all([("a/gone", going), ("a/b", here)], tmp_path)
    assert [name for name, _ in gather.all_connections(found)] == ["a/b"]
    assert found.problems == ("a/gone: network namespace /run/netns/x: No such file or directory",)


def test_alone_it_is_a_failure(node: Node, tmp_path: FilePath) -> None:
    def gone(function: Callable[..., Any], *args: Any) -> Any:
        raise gather.Unreachable("gone")

    with pytest.raises(gather.Unreachable):
        gather.look("", gone, tmp_path)


@pytest.mark.parametrize(("refused", "privileged", "said"), [(3, False, True), (3, True, False), (0, False, False)])
def test_processes_that_may_not_be_looked_at_are_said_once_where_a_capability_would_help(
    node: Node, tmp_path: FilePath, refused: int, privileged: bool, said: bool
) -> None:
    node.refused, node.privileged = refused, privileged
    node.pod.owners = {min(node.pod.owners): Process(1, "curl")}
    found = gather.look_at_all([("a/b", here), ("a/c", here)], tmp_path)
    assert found.problems == ((gather.PIDS_UNKNOWN,) if said else ())
