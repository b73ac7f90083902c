"""Labs whose agent and proxy are killed, stopped and replaced."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from agent.lab import namespaces, processes
from agent.lab.node import Lab, LabPod

FREE_WITHIN_S: Final = 2.0
"""DESIGN 5."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Every pod is proved; an agent that ends leaves its rules."""
    with Lab() as made:
        made.start_proxy()
        made.start_agent(cleanup_on_exit=False)
        made.wait_ready()
        made.wait_proved()
        yield made


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP to a process for the length of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def links(lab: Lab) -> set[str]:
    """The node's interfaces: a pod's end of the pair is gone when its namespace is."""
    return {link["ifname"] for link in json.loads(lab.node.run(["ip", "-j", "link", "show"]).stdout)}


def end_pod(pod: LabPod) -> None:
    """As a container runtime does: every process is killed, then the namespace loses its name."""
    processes.end(processes.inside([pod.netns]), grace_s=0.0)
    namespaces.delete(pod.netns)


def listening(pod: LabPod) -> set[str]:
    """Ports of the proxy that something listens on, as `family:port`."""
    lines = pod.run(["ss", "-Hltn"]).stdout.splitlines()
    ends = [line.split()[3].rpartition(":") for line in lines]
    return {f"{6 if '[' in host else 4}:{port}" for host, _, port in ends if port in ("15001", "15006")}
