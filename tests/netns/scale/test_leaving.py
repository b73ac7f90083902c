"""An agent that leaves a full node, every pod with a connection (issue 5: leaving with connections live)."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from agent.lab.namespaces import Netns
from agent.supervisor.cluster_telling import LEAVE_S
from agent.supervisor.service import CLEANUP_S
from proxy.api.constants import OUTBOUND_PORT
from tests.bench import pod_wires
from tests.bench.cluster_node import PROVED, ClusterNode, Member, cluster_node
from tests.netns.life import kernel

_PODS = 250
_PORT = 9000
_PROVED_WITHIN_S = 120.0


@pytest.fixture
def full() -> Iterator[tuple[ClusterNode, list[Member]]]:
    """A node of 250 proved pods."""
    with cluster_node() as node:
        pods = [node.make(number) for number in range(_PODS)]
        addresses = ((pod_wires.address4(pod.number), pod_wires.address6(pod.number)) for pod in pods)
        spaces = [pod.netns for pod in pods]
        pod_wires.introduce(node.lab.node, pod_wires.GATEWAYS, zip(spaces, addresses, strict=True))
        for pod in pods:
            node.begin(pod)
            node.tell(pod)
        node.start(cleanup_on_exit=True)
        node.wait_all({pod.name for pod in pods}, PROVED, _PROVED_WITHIN_S)
        yield node, pods


def test_an_agent_leaves_250_pods_each_with_a_connection_and_no_rule_stays(
    full: tuple[ClusterNode, list[Member]],
) -> None:
    node, pods = full
    gateway = pod_wires.GATEWAYS[0]
    with ExitStack() as open_, _answering(node.lab.node):
        for pod in pods:
            connection = open_.enter_context(pod.netns.connect(gateway, _PORT))
            connection.sendall(b"\x16\x03\x01 a protocol that the proxy does not read")
            assert connection.recv(16) == b"heard"
        assert all(_steered(pod.netns) for pod in pods)
        assert node.lab.stop_agent(CLEANUP_S + LEAVE_S) == 0, "in time, not killed"
        assert "keeps its rules" not in node.lab.log("agent")
        assert [pod.name for pod in pods if kernel.rules(pod.netns)] == []


def _steered(pod: Netns) -> bool:
    """The proxy holds the other end of its connection."""
    return pod.run(["ss", "-Htn", "state", "established", f"sport = :{OUTBOUND_PORT}"]).stdout != ""


@contextmanager
def _answering(node: Netns) -> Iterator[None]:
    """A server that says one word to everybody, and keeps all connections."""
    held = []
    with node.listen("0.0.0.0", _PORT, backlog=_PODS) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    accepted, _peer = server.accept()
                    held.append(accepted)
                    accepted.recv(64)
                    accepted.sendall(b"heard")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)  # who waits in accept(2) for one more is told
            thread.join()
            for one in held:
                one.close()
