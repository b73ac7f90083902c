"""ZDS end to end: the real agent with a proxy that answers as the test wants, the real proxy with such an agent."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

import pytest

from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.lab.spec import LabSpec
from agent.supervisor.effects import LAST_ANSWERS_S
from proxy.api import zds
from proxy.api.constants import ZDS_SOCKET
from tests.netns.life import kernel
from tests.netns.life.talk import outside
from tests.netns.proxy_supervisor.fake_agent import FakeAgent

MESH = "headgate.io/mesh"
RETRY_S = 5.0
"""ztunnel's pace, and the agent's: LifeSettings.retry_s."""


class ScriptedProxy:
    """A blocking client of the agent's ZDS socket: takes requests one by one, and answers when it is told to."""

    def __init__(self, lab: Lab) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(2 * RETRY_S)
        self._socket.connect(str(lab.run_directory / ZDS_SOCKET))
        zds.send(self._socket, zds.encode_hello())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def next(self) -> tuple[zds.Request, int | None]:
        """The next request, and the inode of the namespace beside it. TimeoutError."""
        packet = zds.receive(self._socket)
        request = zds.decode_request(packet.data)
        descriptor = zds.take_descriptor(request, packet.descriptors)
        if descriptor is None:
            return request, None
        try:
            return request, os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)

    def answer(self, error: str = "") -> None:
        zds.send(self._socket, zds.encode_ack(error))

    def nothing_to_read(self) -> bool:
        return select.select([self._socket], [], [], 0)[0] == []

    def take_empty_snapshot(self) -> None:
        assert self.next() == (zds.SnapshotSent(), None)
        self.answer()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((outside("client"), outside("server")))) as made:
        yield made


def _wait_agent(lab: Lab) -> None:
    """Until it knows of both pods that they are outside. Before it has looked at one, a snapshot keeps that pod."""
    lab.wait("the agent", lambda: lab.agent_get("/pods")["proxy_connected"] is False)
    for pod in lab.pods:
        kernel.wait_state(lab, pod.name, "disabled")


# ── The agent ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_e4_refused_pod_is_pending_without_a_rule_and_announced_again_after_5_s(lab: Lab) -> None:
    client = lab.pod("client")
    lab.start_agent()
    _wait_agent(lab)
    with ScriptedProxy(lab) as proxy:
        proxy.take_empty_snapshot()
        lab.set_label("client", MESH, None)
        request, netns = proxy.next()
        assert request == zds.AddWorkload(client.uid, zds.WorkloadInfo("client", "default", "default"))
        assert netns == client.netns.identity[1]
        proxy.answer("no room\x1b[31m today")
        refused_s = time.monotonic()
        reason = kernel.wait_state(lab, "client", "pending")["reason"]
        assert reason == "the proxy refused the pod: no room\\x1b[31m today"
        assert kernel.rules(client.netns) == kernel.NO_RULES

        again, netns = proxy.next()
        assert RETRY_S - 0.5 <= time.monotonic() - refused_s <= RETRY_S + 2
        assert (again, netns) == (request, client.netns.identity[1])
        assert kernel.rules(client.netns) == kernel.NO_RULES, "announced before installed"
        proxy.answer()
        lab.wait("rules", lambda: kernel.rules(client.netns) != kernel.NO_RULES)
        installed = kernel.wait_state(lab, "client", "installed")
        assert "not proved" in installed["reason"], "this proxy has no listener: that is seen, and said"


def test_e3_newest_proxy_gets_the_add_and_every_proxy_the_del(lab: Lab) -> None:
    client = lab.pod("client")
    lab.start_agent("--drain-s", "0")
    _wait_agent(lab)
    with ScriptedProxy(lab) as old:
        old.take_empty_snapshot()
        with ScriptedProxy(lab) as new:
            new.take_empty_snapshot()
            lab.set_label("client", MESH, None)
            request, netns = new.next()
            assert isinstance(request, zds.AddWorkload)
            assert netns == client.netns.identity[1]
            new.answer()
            kernel.wait_state(lab, "client", "installed")
            assert old.nothing_to_read()

            lab.set_label("client", MESH, "disabled")
            for proxy in (old, new):
                assert proxy.next() == (zds.DeleteWorkload(client.uid), None)
                assert kernel.rules(client.netns) == kernel.NO_RULES, "the rules go before the proxy lets go"
                proxy.answer()
            kernel.wait_state(lab, "client", "disabled")


def test_e2_proxy_that_connects_later_is_told_of_every_enrolled_pod_then_of_the_end(lab: Lab) -> None:
    lab.set_label("client", MESH, None)
    lab.set_label("server", MESH, None)
    lab.start_agent()
    for name in ("client", "server"):
        kernel.wait_state(lab, name, "pending")
    with ScriptedProxy(lab) as proxy:
        told = []
        # Each twice: an answer to the snapshot may be as old as the wait for its turn, so a pod that waits is announced
        # once more before it is given rules.
        for _ in range(2 * len(lab.pods) + 1):
            told.append(proxy.next())
            proxy.answer()
        pods = {request.uid: netns for request, netns in told if isinstance(request, zds.AddWorkload)}
        assert pods == {pod.uid: pod.netns.identity[1] for pod in lab.pods}
        assert told.count((zds.SnapshotSent(), None)) == 1
        for name in ("client", "server"):
            kernel.wait_state(lab, name, "installed")


@pytest.mark.parametrize("ends", [True, False], ids=["it-ends", "it-stays"])
def test_what_is_steered_when_the_agent_ends_for_good_is_led_out_before_the_proxy_is_sent_away(
    lab: Lab, ends: bool
) -> None:
    """Told to end with its next answer, while it is still translated; nobody waits longer for it than 2 s."""
    client = lab.pod("client")
    lab.start_agent()
    _wait_agent(lab)
    with ScriptedProxy(lab) as proxy:
        proxy.take_empty_snapshot()
        lab.set_label("client", MESH, None)
        assert isinstance(proxy.next()[0], zds.AddWorkload)
        proxy.answer()
        kernel.wait_state(lab, "client", "installed")
        with ExitStack() as stack:
            listening = stack.enter_context(client.netns.listen("0.0.0.0", 15001))
            steered = stack.enter_context(client.netns.connect(lab.pod("server").address4, 8080))
            stack.enter_context(listening.accept()[0])
            os.kill(lab.pid("agent"), signal.SIGTERM)
            assert proxy.next() == (zds.DeleteWorkload(client.uid, LAST_ANSWERS_S), None)
            told_s = time.monotonic()
            proxy.answer()
            if ends:
                steered.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                steered.close()
            else:
                assert kernel.packets(lab, "client")["out-capture"] is None, "captures nothing any more"
                assert kernel.rules(client.netns) != kernel.NO_RULES, "and still translates"
            assert proxy.next() == (zds.DeleteWorkload(client.uid), None)
            assert (time.monotonic() - told_s < LAST_ANSWERS_S) is ends
            proxy.answer()
            assert lab.stop_agent() == 0
    assert kernel.rules(client.netns) == kernel.NO_RULES


# ── The proxy ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _listens(netns: Netns) -> list[bool]:
    """On each of outbound and inbound port, v4 and v6: whether somebody accepts."""
    return [_accepts(netns, host, port) for port in (15001, 15006) for host in ("127.0.0.1", "::1")]


def _accepts(netns: Netns, host: str, port: int) -> bool:
    try:
        netns.connect(host, port).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        return True  # accepted, and sent away at once: nobody may call the proxy itself
    return True


ALL, NONE = [True] * 4, [False] * 4


def test_real_proxy_serves_moves_refuses_and_lets_go_as_the_agent_says(lab: Lab) -> None:
    client, server = lab.pod("client").netns, lab.pod("server").netns

    async def scene(agent: FakeAgent) -> None:
        await agent.connect()
        assert await agent.add("uid-1", client.path, "client") == ""
        assert await agent.ask(zds.SnapshotSent()) == ""
        assert await _listening(client) == ALL
        assert await agent.add("uid-1", client.path, "client") == "", "the same again is no error"
        assert await _listening(client) == ALL

        with closing(server.listen("::", 15006)):
            refusal = await agent.add("uid-1", server.path, "client")
        assert "port 15006/tcp6 is already taken in the pod by pid" in refusal
        assert f"pid {os.getpid()} (" in refusal
        assert await _listening(server) == NONE, "half of the listeners would be half a mesh"
        assert await agent.add("uid-1", server.path, "client") == ""
        assert await _listening(server) == ALL
        assert await _listening(client) == NONE

        assert await agent.ask(zds.DeleteWorkload("uid-1")) == ""
        assert await _listening(server) == NONE
        assert await agent.ask(zds.DeleteWorkload("uid-1")) == "", "gone already: no error"

    async def run() -> None:
        agent = FakeAgent(lab.run_directory)
        try:
            lab.start_proxy()
            await scene(agent)
        finally:
            await agent.close_sockets()

    asyncio.run(run())


async def _listening(netns: Netns) -> list[bool]:
    return await asyncio.to_thread(_listens, netns)
