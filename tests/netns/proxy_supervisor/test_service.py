"""The supervisor as a whole: readiness, policy, proofs, workers that die, and its end."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from agent.lab.namespaces import Netns
from proxy.api import zds
from proxy.errors import CannotStart
from proxy.settings import ProxySettings
from proxy.supervisor import workers as workers_module
from proxy.supervisor.service import Supervisor
from tests.netns.proxy_supervisor.conftest import running, until
from tests.netns.proxy_supervisor.test_pods import ask_listener, in_thread, refuses
from tests.unit.proxy_supervisor.fake_worker import HELD, NONCE

MakeNetns = Callable[[], Netns]

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80, targetPort: 8080}]}
"""


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_ready_only_after_snapshot_and_policy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            status, body = await proxy.get("/healthz/ready")
            assert status == 503
            assert "no complete snapshot from the agent" in body
            await proxy.agent.connect()
            assert (await proxy.get("/healthz/ready"))[0] == 503
            await proxy.agent.ask(zds.SnapshotSent())
            await until("ready", proxy.ready)

    asyncio.run(scenario())


def test_a_changed_file_is_a_new_generation_in_every_worker(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        run_dir, config_dir = tmp_path / "run", tmp_path / "config"
        run_dir.mkdir()
        config_dir.mkdir()
        netns = make_netns()
        async with running(run_dir, config_dir=config_dir) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)

            async def generation_is(wanted: int) -> bool:
                policy = json.loads((await proxy.get("/policy"))[1])
                return policy["generation"] == wanted and policy["in_force"] == [wanted]

            await until("generation 1", lambda: generation_is(1))
            (config_dir / "service.yaml").write_text(SERVICE)
            await until("generation 2", lambda: generation_is(2))
            assert str(await in_thread(ask_listener, netns, 15001)).endswith("generation 2")
            (config_dir / "broken.yaml").write_text("kind: [")
            await until("generation 3", lambda: generation_is(3))
            rejections = json.loads((await proxy.get("/policy"))[1])["rejections"]
            assert len(rejections) == 1
            assert "broken.yaml" in rejections[0]["text"]
            assert "headgate_policy_generation 3\n" in (await proxy.get("/metrics"))[1]

    asyncio.run(scenario())


def test_a_directory_that_is_not_there_means_not_ready_until_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        config_dir = tmp_path / "config"
        async with running(tmp_path, config_dir=config_dir) as proxy:
            await proxy.agent.connect()
            await proxy.agent.ask(zds.SnapshotSent())
            status, body = await proxy.get("/healthz/ready")
            assert (status, "no policy in force in worker 0" in body) == (503, True)
            config_dir.mkdir()
            await until("ready", proxy.ready)

    asyncio.run(scenario())


def test_a_proof_that_a_worker_saw_reaches_the_agent(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)
            await proxy.agent.listen_for_proofs()
            await in_thread(ask_listener, netns, 15006)
            async with asyncio.timeout(10):
                proof = await proxy.agent.proofs.get()
            assert proof == {
                "type": "proof",
                "nonce": NONCE,
                "netns_cookie": proxy.supervisor.pods.served[0].identity.netns_cookie,
                "direction": "inbound",
                "original_destination": "127.0.0.1",
                "port": 15006,
            }

    asyncio.run(scenario())


def test_a_worker_that_dies_is_replaced_and_serves_the_same_pods_and_policy(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)
            worker = proxy.supervisor.workers[0]
            first = worker.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            # Not refused meanwhile: the supervisor holds the listener, the kernel its queue.
            answer = str(await in_thread(ask_listener, netns, 15001))
            assert answer.endswith("generation 1")
            assert answer != f"worker {first} generation 1"
            assert f"worker {worker.pid} " in answer
            assert 'headgate_worker_restarts_total{reason="died"} 1\n' in (await proxy.get("/metrics"))[1]

    asyncio.run(scenario())


def test_a_pod_whose_worker_dies_while_taking_it_is_acknowledged_by_the_next(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path, f"mortal:{tmp_path / 'died'}") as proxy:
            await proxy.agent.connect()
            assert await proxy.agent.add("uid-1", netns.path) == ""
            assert proxy.supervisor.workers[0].restarts.total() == 1

    asyncio.run(scenario())


def test_counters_do_not_fall_when_a_worker_dies(tmp_path: Path) -> None:
    async def counted(get: Callable[[str], object]) -> float:
        _, body = await get("/metrics")  # type: ignore[misc]
        lines = [line for line in body.splitlines() if line.startswith("headgate_fake_reports_total ")]
        return float(lines[0].split()[1]) if lines else 0.0

    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            await until("two reports", lambda: _at_least(2.0, lambda: counted(proxy.get)))
            before = await counted(proxy.get)
            worker = proxy.supervisor.workers[0]
            os.kill(worker.pid or 0, signal.SIGKILL)
            await until("a new worker", lambda: worker.restarts.total() == 1 and worker.policy_in_force is not None)
            assert await counted(proxy.get) == before + 1

    async def _at_least(wanted: float, value: Callable[[], object]) -> bool:
        return await value() >= wanted  # type: ignore[misc,no-any-return]

    asyncio.run(scenario())


def test_what_a_worker_held_when_it_was_killed_is_counted_as_cut_and_its_successor_begins_at_none(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, f"holding:{os.devnull}") as proxy:
            await proxy.agent.connect()
            for uid in ("uid-1", "uid-2"):
                assert await proxy.agent.add(uid, make_netns().path) == ""
            worker = proxy.supervisor.workers[0]

            def served() -> list[str]:
                return [pod.identity.uid for pod in proxy.supervisor.pods.served if pod.served.is_set()]

            for deaths in (1, 2):
                worker.kill()
                await until("the next one", lambda: len(served()) == 2 and worker.restarts.total() == deaths)  # noqa: B023
                page = (await proxy.get("/metrics"))[1]
                for uid in ("uid-1", "uid-2"):
                    labels = f'namespace="shop",pod="{uid}",reason="worker_ended"'
                    assert f"headgate_connections_cut_total{{{labels}}} {deaths * HELD}\n" in page

    asyncio.run(scenario())


def test_the_end_closes_listeners_worker_and_sockets(tmp_path: Path, make_netns: MakeNetns) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with running(tmp_path) as proxy:
            await proxy.agent.connect()
            await proxy.agent.add("uid-1", netns.path)
            pid = proxy.supervisor.workers[0].pid
            assert pid is not None
        assert await in_thread(refuses, netns, 15001)
        assert not alive(pid)
        assert not (tmp_path / "proxy-admin.sock").exists()

    asyncio.run(scenario())


def test_a_worker_that_ignores_the_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "STOP_GRACE_S", 0.1)

    async def scenario() -> None:
        async with running(tmp_path, "stubborn") as proxy:
            await until("policy", lambda: proxy.supervisor.workers[0].policy_in_force is not None)
            pid = proxy.supervisor.workers[0].pid
        assert not alive(pid or 0)

    asyncio.run(scenario())


def test_a_second_proxy_on_the_same_directory_is_refused_and_the_first_lives_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            second = Supervisor(ProxySettings(tmp_path, None, 0, 0, ("127.0.0.1",), 0.0))
            with pytest.raises(CannotStart, match="another proxy answers"):
                await second.serve(asyncio.Event())
            assert (await proxy.get("/pods"))[0] == 200

    asyncio.run(scenario())


def test_a_port_in_use_is_named_with_its_option(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as proxy:
            port = proxy.supervisor.admin.metrics_ports[0]
            (tmp_path / "other").mkdir()
            second = Supervisor(ProxySettings(tmp_path / "other", None, port, 0, ("127.0.0.1",), 0.0))
            with pytest.raises(CannotStart, match=f"metrics port {port} .*--metrics-port"):
                await second.serve(asyncio.Event())

    asyncio.run(scenario())
