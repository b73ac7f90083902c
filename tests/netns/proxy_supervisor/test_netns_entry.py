"""proxy.datapath.netns: in and back on one thread; never left behind in a pod's namespace."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.lab.namespaces import Netns
from proxy.datapath.netns import NetnsEntry, netns_cookie

MakeNetns = Callable[[], Netns]


@pytest.fixture
def entry() -> Iterator[NetnsEntry]:
    made = NetnsEntry()
    yield made
    made.close()


def cookie_here() -> int:
    with socket.socket() as sock:
        return netns_cookie(sock)


def test_a_socket_made_inside_belongs_there_and_the_thread_is_back(entry: NetnsEntry, make_netns: MakeNetns) -> None:
    netns = make_netns()
    home, there = cookie_here(), netns.call(cookie_here)
    with netns.path.open() as target, entry.enter(target.fileno()):
        made = socket.socket()
    with closing(made):
        assert netns_cookie(made) == there
    assert cookie_here() == home != there


def test_the_thread_is_back_after_an_error_inside(entry: NetnsEntry, make_netns: MakeNetns) -> None:
    home = cookie_here()
    with pytest.raises(ValueError, match="inside"), make_netns().path.open() as target, entry.enter(target.fileno()):
        raise ValueError("inside")
    assert cookie_here() == home


def test_what_is_no_network_namespace_is_refused_and_nothing_changes(entry: NetnsEntry) -> None:
    home = cookie_here()
    with (
        Path("/proc/self/ns/uts").open() as uts,
        pytest.raises(OSError, match="cannot enter the network namespace: Invalid argument"),
        entry.enter(uts.fileno()),
    ):
        pass
    assert cookie_here() == home


def test_a_thread_that_cannot_return_ends_the_process(make_netns: MakeNetns) -> None:
    program = """
import os, sys
from proxy.datapath.netns import NetnsEntry
entry = NetnsEntry()
with open(sys.argv[1]) as target, entry.enter(target.fileno()):
    os.close(entry.fileno())
print("served on in the wrong namespace")
"""
    command = [sys.executable, "-c", program, str(make_netns().path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "."})
    assert ended.returncode == 70
    assert ended.stdout == ""
    assert "headgate: ending: cannot return to the own network namespace: Bad file descriptor" in ended.stderr
