"""A pod ends under load, whoever is there to notice: its veth is gone within two seconds, and its neighbours' requests
do not notice it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from agent.lab import namespaces
from agent.lab.node import Lab
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import KEPT, PAUSING, Traffic

FREE_S: Final = 2.0
VETH: Final = "veth1"
"""The node's end of web-v1's pair: the second pod of the lab."""


@contextmanager
def _alive(lab: Lab, name: str) -> Iterator[None]:
    yield


@contextmanager
def _dead(lab: Lab, name: str) -> Iterator[None]:
    lab.kill(name)
    yield


@contextmanager
def _stopped(lab: Lab, name: str) -> Iterator[None]:
    pid = lab.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("agent_is", [_alive, _dead, _stopped], ids=["alive", "dead", "stopped"])
def test_namespace_deleted_under_load_is_free_within_two_seconds_with_the_agent(
    lab: Lab, loss: Record, agent_is: Callable[[Lab, str], object]
) -> None:
    ending, staying = lab.pod("web-v1"), lab.pod("web-v2")
    to_ending, to_staying = [f"http://{ending.address4}:8080/"], [f"http://{staying.address4}:8080/"]
    with Traffic(lab, (KEPT, PAUSING), urls=to_ending), Traffic(lab, (KEPT,), urls=to_staying) as others:
        with agent_is(lab, "agent"):  # type: ignore[attr-defined]
            lab.kill("web-v1.web")  # its application: the last process of the pod
            namespaces.delete(ending.netns)
            began = time.monotonic()
            lab.wait(f"{VETH} to be gone", lambda: not _there(lab, VETH), timeout_s=FREE_S + 5)
            took_s = time.monotonic() - began
        others.goes_on()
        verdict = others.end()
    name = agent_is.__name__.removeprefix("_")
    order = ("alive", "dead", "stopped").index(name)
    loss(f"end-{order}-agent-{name}", verdict, note=f"veth gone after {took_s:.2f} s; the load is a neighbour's")
    assert took_s <= FREE_S
    nothing_failed(verdict, others)


def test_namespace_deleted_while_the_proxy_is_dead_is_free_within_two_seconds(lab: Lab) -> None:
    """The stored listeners go with the pod."""
    lab.kill("proxy")
    lab.kill("web-v1.web")
    namespaces.delete(lab.pod("web-v1").netns)
    lab.wait(f"{VETH} to be gone", lambda: not _there(lab, VETH), timeout_s=FREE_S)


def _there(lab: Lab, interface: str) -> bool:
    return lab.node.run(["ip", "link", "show", interface], check=False).returncode == 0
