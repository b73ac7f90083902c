"""GET /connections: every worker's living connections as lines, and at the end what is missing."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.lab.namespaces import Netns
from tests.netns.proxy_supervisor.conftest import Running, running, until
from tests.unit.proxy_supervisor.fake_worker import TOLD

MakeNetns = Callable[[], Netns]


async def connections(proxy: Running, query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    status, body = await proxy.get(f"/connections{query}")
    assert status == 200, body
    *lines, end = [json.loads(line) for line in body.splitlines()]
    return lines, end["end"]


def test_a_line_a_connection_and_an_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            lines, end = await connections(proxy)
            assert end == {"told": TOLD, "left_out": 0, "silent_workers": []}
            assert len(lines) == TOLD
            assert lines[0] == {
                "pod": "uid-1",
                "netns_cookie": 4711,
                "worker": 0,
                "worker_pid": proxy.supervisor.workers[0].pid,
                "direction": "outbound",
                "protocol": "http",
                "client": "[fd77::2]:40000",
                "listener": "[::1]:15001",
                "original_destination": "[fd96::10]:80",
                "upstream_from": "[fd77::2]:50000",
                "upstream": "[fd77::3]:8080",
                "service": "web.shop.svc.cluster.local",
                "route": "shop/web\u001b[31m",
                "workload": "shop/web-1",
                "age_s": 1.235,
            }

    asyncio.run(scenario())


def test_no_byte_of_a_name_reaches_a_terminal_raw(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            _, body = await proxy.get("/connections")
            assert "\x1b" not in body and "\\u001b[31m" in body

    asyncio.run(scenario())


def test_what_is_beyond_the_wish_is_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            lines, end = await connections(proxy, "?most=2")
            assert (len(lines), end["told"], end["left_out"]) == (2, 2, TOLD - 2)
            lines, end = await connections(proxy, "?pod=somebody-else")
            assert (len(lines), end["left_out"]) == (0, 0)
            assert (await connections(proxy, "?netns_cookie=4711&pod=uid-1"))[1]["told"] == TOLD

    asyncio.run(scenario())


def test_a_wish_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            for query, words in (
                ("?most=0", "most='0': give a number from 1 to"),
                ("?most=99999999999", "most='99999999999': give a number"),
                ("?netns_cookie=-1", "netns_cookie='-1': give a number"),
                ("?pods=x", "unknown parameter 'pods'"),
            ):
                status, body = await proxy.get(f"/connections{query}")
                assert status == 400 and words in body, body

    asyncio.run(scenario())


def test_a_worker_that_says_nothing_is_named_and_holds_nobody_back_for_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, "secretive") as proxy:
            began = asyncio.get_running_loop().time()
            lines, end = await connections(proxy)
            assert (lines, end["silent_workers"]) == ([], [0])
            assert asyncio.get_running_loop().time() - began < 5.0

    asyncio.run(scenario())


def test_a_worker_that_is_killed_meanwhile_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, "secretive") as proxy:
            worker = proxy.supervisor.workers[0]
            await until("a worker", lambda: worker.pid is not None)
            asking = asyncio.create_task(connections(proxy))
            await until("the question", lambda: proxy.supervisor.connections.asking)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            assert (await asking)[1]["silent_workers"] == [0]

    asyncio.run(scenario())


def test_several_who_ask_at_once_are_all_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            answers = await asyncio.gather(*(connections(proxy) for _ in range(5)))
            assert [end["told"] for _, end in answers] == [TOLD] * 5

    asyncio.run(scenario())


def test_who_leaves_before_the_end_holds_nobody_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, "secretive") as proxy:
            reader, writer = await asyncio.open_unix_connection(str(proxy.run_dir / "proxy-admin.sock"))
            writer.write(b"GET /connections HTTP/1.1\r\nHost: proxy\r\n\r\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert (await connections(proxy))[1]["silent_workers"] == [0]
            assert not proxy.supervisor.connections.asking
            del reader

    asyncio.run(scenario())
