"""What the agent answers to the plugin, whatever it is asked and whatever happens meanwhile: the real program, over the
real socket, to a server whose acts are the test's."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.sources.cni import CniServer
from agent.sources.cni_request import Attachment, CniCode, NotAttached, answer, read_request
from tests.kube.cni.plugin import Plugin, Said, build


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cni") / "headgate-cni")


class Acts:
    """agent.sources.cni.Attachments; `fault` is raised by each of them."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.asked: list[tuple[str, object]] = []

    async def add(self, attachment: Attachment, /) -> None:
        self._asked("add", attachment)

    async def remove(self, attachment: Attachment, /) -> None:
        self._asked("remove", attachment)

    async def check(self, attachment: Attachment, /) -> None:
        self._asked("check", attachment)

    async def status(self) -> None:
        self._asked("status", None)

    async def keep_only(self, container_ids: frozenset[str], /) -> None:
        self._asked("keep_only", container_ids)

    def _asked(self, what: str, of: object) -> None:
        self.asked.append((what, of))
        if self.fault is not None:
            raise self.fault


def served(program: Path, at: Path, acts: Acts, scenario: Callable[[Plugin], Awaitable[None]]) -> None:
    async def whole() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(at / "cni.sock"))
        listener.listen()
        server = CniServer(acts)
        await server.start(listener)
        try:
            await scenario(Plugin(program, at / "cni.sock"))
        finally:
            await server.close()
            listener.close()

    asyncio.run(whole())


async def run(plugin: Plugin, command: str, **more: Any) -> Said:
    words = {"netns": "/run/netns/x", **more}
    return await asyncio.to_thread(plugin.run, command, plugin.config(("10.0.0.5/24",)), **words)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "STATUS"])
def test_a_fault_of_the_agent_is_told_and_the_next_one_is_served(program: Path, tmp_path: Path, command: str) -> None:
    acts = Acts(RuntimeError("broken"))

    async def scenario(plugin: Plugin) -> None:
        error = (await run(plugin, command)).error
        assert (error["code"], error["msg"]) == (100, "headgate: a fault of the agent: RuntimeError('broken')")
        acts.fault = None
        assert (await run(plugin, command)).status == 0

    served(program, tmp_path, acts, scenario)


@pytest.mark.parametrize("fault", [RuntimeError("broken"), NotAttached(CniCode.TRY_AGAIN_LATER, "slow")])
def test_a_pod_that_goes_is_never_kept_by_an_error(program: Path, tmp_path: Path, fault: Exception) -> None:
    acts = Acts(fault)

    async def scenario(plugin: Plugin) -> None:
        assert await run(plugin, "DEL") == Said(0, "")
        assert await run(plugin, "DEL", pod="Not A Name") == Said(0, "")

    served(program, tmp_path, acts, scenario)
    assert [what for what, _ in acts.asked] == ["remove"]


def test_gc_without_its_list_is_refused_for_none_is_not_an_empty_one(program: Path, tmp_path: Path) -> None:
    acts = Acts()

    async def scenario(plugin: Plugin) -> None:
        assert (await run(plugin, "GC")).error["code"] == CniCode.BAD_CONFIG.value
        assert acts.asked == []
        for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
            config = plugin.config(cniVersion="1.1.0", **{key: [{"containerID": "c1", "ifname": "eth0"}]})
            assert (await asyncio.to_thread(plugin.run, "GC", config)).status == 0
        assert acts.asked == [("keep_only", frozenset({"c1"}))] * 2

    served(program, tmp_path, acts, scenario)


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_the_result_is_the_former_ones_and_an_error_is_of_the_lists_version(
    program: Path, tmp_path: Path, version: str
) -> None:
    acts = Acts()

    async def scenario(plugin: Plugin) -> None:
        previous = {"cniVersion": version, "ips": [{"version": "4", "address": "10.0.0.5/24"}], "dns": {}}
        config = plugin.config(cniVersion=version, prevResult=previous)
        said = await asyncio.to_thread(plugin.run, "ADD", config, netns="/run/netns/x")
        assert (said.status, json.loads(said.out)) == (0, previous)
        acts.fault = NotAttached(CniCode.CANNOT_ENROL, "why")
        error = (await asyncio.to_thread(plugin.run, "ADD", config, netns="/run/netns/x")).error
        assert error == {"cniVersion": version, "code": 100, "msg": "headgate: why"}

    served(program, tmp_path, acts, scenario)
    _, attachment = acts.asked[0]
    assert isinstance(attachment, Attachment)
    assert list(map(str, attachment.addresses)) == ["10.0.0.5"]


def test_without_an_agent_status_says_not_available(program: Path, tmp_path: Path) -> None:
    plugin = Plugin(program, tmp_path / "cni.sock")
    error = plugin.run("STATUS", plugin.config(cniVersion="1.1.0")).error
    assert (error["code"], error["cniVersion"]) == (50, "1.1.0")


# ── The request ────────────────────────────────────────────────────────────────────────────────────────────────────
HEAD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u-1",
}


def request(body: bytes = b"{}", **head: str) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in (HEAD | head).items()).encode() + b"\n" + body


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 6),
        (b"CNI_COMMAND=ADD\n", 6),
        (b"\xff\n\n{}", 6),
        (request(b""), 6),
        (request(b"[]"), 6),
        (request(b"[" * 100_000), 6),
        (request(CNI_COMMAND="UPDATE"), 4),
        (request(CNI_CONTAINERID="../x"), 4),
        (request(CNI_CONTAINERID="\x1b[31m"), 4),
        (request(CNI_NETNS="relative"), 4),
        (request(CNI_ARGS=""), 4),
        (request(CNI_ARGS="K8S_POD_NAMESPACE=a/../b;K8S_POD_NAME=web"), 4),
        (request(CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=$(id)"), 4),
        (request(CNI_ARGS="x" * 5000), 6),
    ],
)
def test_what_no_runtime_sends_is_refused_in_words_that_a_terminal_can_bear(data: bytes, code: int) -> None:
    with pytest.raises(NotAttached) as refused:
        read_request(data)
    assert refused.value.code.value == code
    said = json.loads(answer(refused.value)[1:])
    assert said["msg"].isprintable()


def test_of_a_result_what_is_no_address_is_passed_over() -> None:
    body = json.dumps({"prevResult": {"ips": [{"address": "nowhere"}, {}, 1, {"address": "fd00::5/64"}]}}).encode()
    attachment = read_request(request(body)).attachment
    assert attachment is not None
    assert list(map(str, attachment.addresses)) == ["fd00::5"]
    assert read_request(request(b'{"prevResult": []}')).attachment is not None
