"""What keeps a rollout from going on, and what does not."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agent.supervisor.readiness import Readiness


@dataclass
class Source:
    problems: tuple[str, ...] = ()


@dataclass
class Node:
    """All that is asked, as a test wishes it."""

    directory: Path
    complete: bool = True

    def __post_init__(self) -> None:
        self.pods, self.objects, self.chain = Source(), Source(), Chain()
        self.readiness = Readiness(self.pods, self.objects, lambda: self.complete, self.chain)
        self.sockets = [self.directory / name for name in ("zds.sock", "cni.sock")]
        for path in self.sockets:
            path.touch()

    def opened(self) -> None:
        self.readiness.opened(self.sockets)


@dataclass
class Chain:
    problem: str = ""


def test_an_agent_that_waits_for_its_pods_says_why_it_has_none(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert node.readiness.missing() == ["pods are not known yet"]
    node.pods.problems = ("pods: cannot reach the API server", "namespaces: the same")
    assert node.readiness.missing() == ["pods are not known yet: pods: cannot reach the API server"]
    node.opened()
    assert node.readiness.missing() == [], "what went wrong before it answered does not matter any more"


def test_an_agent_without_all_objects_holds_the_rollout(tmp_path: Path) -> None:
    node = Node(tmp_path, complete=False)
    node.opened()
    node.objects.problems = ("virtualservices: forbidden",)
    assert node.readiness.missing() == ["objects are not all known yet: virtualservices: forbidden"]
    node.complete = True
    assert node.readiness.missing() == []


def test_an_api_server_away_after_the_start_makes_no_agent_unready(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.opened()
    assert node.readiness.missing() == []
    node.pods.problems = node.objects.problems = ("cannot reach the API server",)
    node.complete = False
    assert node.readiness.missing() == []


def test_a_chain_without_our_plugin_holds_the_rollout_whenever_it_is_so(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.opened()
    node.chain.problem = "/etc/cni/net.d: No space left on device"
    assert node.readiness.missing() == ["CNI: /etc/cni/net.d: No space left on device"]
    node.chain.problem = ""
    assert node.readiness.missing() == []
    node.chain.problem = "/etc/cni/net.d: holds no configuration yet"
    assert node.readiness.missing() == ["CNI: /etc/cni/net.d: holds no configuration yet"]


def test_a_socket_that_is_gone_or_anothers_makes_it_unready(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.opened()
    zds, cni = node.sockets
    zds.unlink()
    (tmp_path / "new").touch()
    (tmp_path / "new").rename(cni)
    assert node.readiness.missing() == [f"{path} is no longer this agent's: start it anew" for path in (zds, cni)]


def test_over_http_a_reason_is_told_printably_and_who_is_not_ready_lives(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = Node(tmp_path)
        node.opened()
        application = web.Application()
        node.readiness.serve_in(application)
        async with TestClient(TestServer(application)) as client:
            answer = await client.get("/healthz/ready")
            assert (answer.status, await answer.text()) == (200, "ready\n")
            node.chain.problem = "x\x1b[2J"
            answer = await client.get("/healthz/ready")
            assert (answer.status, await answer.text()) == (503, "not ready: CNI: x\\x1b[2J\n")
            answer = await client.get("/healthz/live")
            assert answer.status == 200

    asyncio.run(scenario())
