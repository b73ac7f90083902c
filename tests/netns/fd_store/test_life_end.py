"""DESIGN 5, a pod's end: `ip netns del` frees its namespace and veth within 2 s; each of us alive, dead or stopped.

With connections of all kinds through the pod: their sockets pin a namespace as listeners do.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.lab import namespaces
from agent.lab.node import Lab
from tests.netns.fd_store.conftest import FREE_WITHIN_S, end_pod, links, stopped
from tests.netns.life.talk import until

_HOLD = """
import socket, sys, time
held = []
for host, request in (("10.96.0.10", b"GET / HTTP/1.1\\r\\nhost: web\\r\\n\\r\\n"), ("10.96.0.10", b"GET / HT")):
    sock = socket.create_connection((host, 80), 5)
    sock.sendall(request)
    held.append(sock)
held[0].recv(1)
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def busy(lab: Lab) -> Iterator[None]:
    """Through `client` outbound and `web-v1` inbound: a kept connection and one in the middle of its request each."""
    client, web = lab.pod("client"), lab.pod("web-v1")
    with ExitStack() as stack:
        holder = client.popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE)
        stack.callback(holder.communicate)
        stack.callback(holder.kill)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for request in (b"GET / HTTP/1.1\r\nhost: web\r\n\r\n", b"GET / HT"):
            sock = stack.enter_context(lab.node.connect(web.address4, 8080))
            sock.sendall(request)
            if request.endswith(b"\r\n\r\n"):
                assert sock.recv(12) == b"HTTP/1.1 200"
        yield


def ends(lab: Lab) -> None:
    """Both pods end; their veths are free in time.

    The kernel takes namespaces down one after the other, those of a busy machine too: time counts from when one that
    is nobody's, and ends with them, is down.
    """
    nobodys = namespaces.create(f"{lab.node.name}-nobodys")
    try:
        lab.node.run(
            ["ip", "link", "add", "veth-nobodys", "type", "veth", "peer", "name", "eth0", "netns", nobodys.name]
        )
        assert {"veth0", "veth1", "veth-nobodys"} <= links(lab)
        end_pod(lab.pod("client"))
        end_pod(lab.pod("web-v1"))
    finally:
        namespaces.delete(nobodys)
    until("nobody's is down", lambda: "veth-nobodys" not in links(lab), timeout_s=30.0)
    until("both veth pairs are free", lambda: not {"veth0", "veth1"} & links(lab), timeout_s=FREE_WITHIN_S)


def served(lab: Lab) -> set[str]:
    return {pod["name"] for pod in lab.proxy_get("/pods")}


def test_with_agent_and_proxy_alive(lab: Lab) -> None:
    with busy(lab):
        ends(lab)
        lab.wait("the proxy to let go", lambda: served(lab) == {"web-v2"})


def test_with_the_agent_dead(lab: Lab) -> None:
    with busy(lab):
        lab.kill_agent()
        ends(lab)
        assert served(lab) == {"web-v2"}


def test_with_the_agent_stopped(lab: Lab) -> None:
    with busy(lab), stopped(lab.pid("agent")):
        ends(lab)
        assert served(lab) == {"web-v2"}


def test_with_the_proxy_dead_and_its_listeners_in_the_store(lab: Lab) -> None:
    with busy(lab):
        lab.kill("proxy")
        ends(lab)


def test_with_the_proxy_draining(lab: Lab) -> None:
    """Its connections may have a minute; a pod that ends has none."""
    lab.stop_proxy()
    lab.start_proxy("--drain-s", "60")
    lab.wait_ready()
    lab.wait_proved()
    with busy(lab):
        former = lab.take_over_proxy("--drain-s", "60")
        lab.wait("the take-over", lambda: "took over" in lab.log("proxy"))
        assert former.poll() is None, "there was nothing to drain"
        ends(lab)
        assert former.wait(10) == 0


@pytest.mark.parametrize("agent", ["alive", "stopped"])
def test_after_a_new_proxy_has_the_listeners_of_a_killed_one(lab: Lab, agent: str) -> None:
    """Its copies come from the box that the agent keeps: emptied by one, empty for both."""
    lab.kill("proxy")
    lab.start_proxy()
    lab.wait_ready()
    lab.wait_proved()
    with busy(lab), ExitStack() as stack:
        if agent == "stopped":
            stack.enter_context(stopped(lab.pid("agent")))
        ends(lab)
