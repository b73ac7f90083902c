"""Go's net/http on both ends: connection reuse, streaming, cancellation and deadlines that reach the other side."""

import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from agent.lab.node import Lab
from agent.lab.spec import ServerSpec

pytestmark = pytest.mark.timeout(300)
"""A Go without its compiled library builds net/http first, for a minute; afterwards it is in the cache."""

SOURCE = Path(__file__).with_name("gopeer")
BUILD = Path(__file__).resolve().parents[3] / "build" / "gopeer"


@pytest.fixture(scope="module")
def gopeer() -> Path:
    """Built from the file beside this one with the Go that is installed, offline; its cache is under build/."""
    environment = {
        **os.environ,
        "GOCACHE": str(BUILD / "cache"),
        "GOPATH": str(BUILD / "path"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
    }
    BUILD.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-buildvcs=false", "-o", str(BUILD / "gopeer"), "."]
    subprocess.run(command, cwd=SOURCE, env=environment, check=True, timeout=280)
    return BUILD / "gopeer"


@pytest.fixture(scope="module")
def peers(lab: Lab, gopeer: Path) -> Lab:
    lab.start_server("server", ServerSpec("go", (str(gopeer), "serve", ":8081"), ports=(8081,)))
    return lab


@pytest.fixture(params=[81, 87], ids=["declared", "detected"])
def url(request: pytest.FixtureRequest, url_host: str) -> str:
    return f"http://{url_host}:{request.param}"


def go(lab: Lab, *arguments: str) -> dict[str, Any]:
    printed = json.loads(lab.pod("client").run([str(BUILD / "gopeer"), *arguments], timeout_s=20).stdout)
    assert isinstance(printed, dict)
    return printed


def test_go_keeps_its_connection_and_sees_the_client(peers: Lab, url: str, client_address: str) -> None:
    result = go(peers, "get", url + "/", "200")
    assert result["reused"] == 199
    seen = json.loads(result["body"])
    assert seen == {"client": client_address, "proto": "HTTP/1.1", "host": url.removeprefix("http://")}


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [16, 8 << 20])
def test_go_posts_arrive_whole(peers: Lab, url: str, size: int, framing: str) -> None:
    result = go(peers, "post", url, str(size), framing)
    trailer = "trailing" if framing == "chunked" else ""
    assert result["answer"] == f"{size} {result['sum']} {trailer}"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_go_a_cancelled_context_is_seen_by_the_servers_handler(peers: Lab, url: str, method: str) -> None:
    result = go(peers, "cancel", url, uuid.uuid4().hex, method)
    assert result == {"client": True, "server": "cancelled: context canceled"}


def test_go_a_passed_deadline_is_seen_by_the_servers_handler(peers: Lab, url: str) -> None:
    result = go(peers, "deadline", url, uuid.uuid4().hex)
    assert result == {"client": True, "server": "cancelled: context canceled"}


def test_go_a_streamed_answer_arrives_line_by_line(peers: Lab, url: str) -> None:
    result = go(peers, "stream", url, uuid.uuid4().hex)
    assert result["lines"] == [f"line {number}\n" for number in range(5)]


def test_go_an_answer_before_the_body_is_read(peers: Lab, url: str) -> None:
    assert go(peers, "early", url) == {"status": 413, "body": "too large\n"}


def test_go_trailers_of_an_answer_arrive(peers: Lab, url: str) -> None:
    assert go(peers, "trailers", url) == {"body": "body", "trailer": "42"}
