"""SMTP (the server speaks first), gRPC (HTTP/2 as tcp) and WebSocket (a tunnel after 101), each with real peers."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.lab.node import Lab
from agent.lab.spec import ServerSpec

HERE = Path(__file__).parent


def start(lab: Lab, script: str, *arguments: str, port: int) -> None:
    command = (sys.executable, str(HERE / script), *arguments, str(port))
    lab.start_server("server", ServerSpec(script.partition(".")[0], command, ports=(port,)))


@pytest.fixture(scope="module")
def mail(lab: Lab) -> Lab:
    start(lab, "smtp_server.py", port=8084)
    return lab


@pytest.fixture(scope="module")
def rpc(lab: Lab) -> Lab:
    start(lab, "grpc_peer.py", "serve", port=8083)
    return lab


@pytest.fixture(scope="module")
def websocket(lab: Lab) -> Lab:
    start(lab, "websocket_peer.py", "serve", port=8082)
    return lab


def client(lab: Lab, script: str, *arguments: str) -> str:
    return lab.pod("client").run([sys.executable, str(HERE / script), *arguments], timeout_s=30).stdout


def test_smtp_a_server_that_speaks_first_on_an_undeclared_port(mail: Lab, vip: str, client_address: str) -> None:
    said = client(mail, "smtp_client.py", vip, "84").splitlines()
    seen_as = client_address if ":" in client_address else f"::ffff:{client_address}"
    assert said == [f"hello {seen_as}", "took 72 bytes"]


def test_grpc_unary_streams_failures_and_deadlines(rpc: Lab, url_host: str, client_address: str) -> None:
    result: dict[str, Any] = json.loads(client(rpc, "grpc_peer.py", "call", f"{url_host}:83"))
    host = f"ipv6:%5B{client_address}%5D" if ":" in client_address else f"ipv4:{client_address}"
    assert result.pop("who").rpartition(":")[0] == host
    assert result == {
        "many": 200,
        "large": True,
        "chat": ["a", "b"],
        "failure": "FAILED_PRECONDITION: not today",
        "deadline": "DEADLINE_EXCEEDED",
        "server was told": "yes",
    }


def test_websocket_talks_both_ways_and_closes_with_the_servers_reason(
    websocket: Lab, url_host: str, client_address: str
) -> None:
    result: dict[str, Any] = json.loads(client(websocket, "websocket_peer.py", "talk", f"ws://{url_host}:82/chat?x=1"))
    assert result.pop("client").removeprefix("::ffff:") == client_address
    assert result == {
        "path": "/chat?x=1",
        "text": "héllo",
        "binary": True,
        "pong": True,
        "many": 300,
        "closed": "4000 as you wish",
    }
