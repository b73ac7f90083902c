"""`headgate webhook` as a process."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from agent.inject.template import INIT, PROXY
from tests.kube.webhook.running import WAIT_S, Webhook, cluster, free_port, until

_COMMAND = [sys.executable, "-m", "agent", "webhook"]


def _kubeconfig(at: Path, url: str) -> Path:
    named = {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": "t"}}]}
    context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "headgate-system"}}
    path = at / "kubeconfig"
    path.write_text(json.dumps({**named, "apiVersion": "v1", "contexts": [context], "current-context": "x"}))
    return path


def test_it_serves_the_cluster_of_its_kubeconfig(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster() as made:
            port, health_port = free_port(), free_port()
            words = [
                "--port",
                str(port),
                "--metrics-port",
                str(health_port),
                "--bind",
                "127.0.0.1",
                "--image",
                "mesh:2",
            ]
            kubeconfig = ["--kubeconfig", str(_kubeconfig(tmp_path, made.server.url))]
            process = await asyncio.create_subprocess_exec(*_COMMAND, *kubeconfig, *words)
            try:
                made.server.admission.reaches = lambda namespace, name, number: ("127.0.0.1", port)
                replica = Webhook(port, health_port, asyncio.Event(), asyncio.create_task(asyncio.sleep(0)))
                await until(replica.is_ready)
                pod = await made.make(
                    {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
                )
            finally:
                process.kill()  # a replica that is killed leaves nothing behind that another could not go on with
                await process.wait()
            images = {one["name"]: one["image"] for one in pod["spec"]["initContainers"]}
            assert images == {INIT: "mesh:2", PROXY: "mesh:2"}
            async with made.webhook():
                assert len(made.held.authorities) == 1

    asyncio.run(scenario())


def test_asked_to_end_before_an_api_server_was_there_it_ends(tmp_path: Path) -> None:
    port = free_port()
    kubeconfig = str(_kubeconfig(tmp_path, f"http://127.0.0.1:{free_port()}"))
    words = ["--kubeconfig", kubeconfig, "--metrics-port", str(port), "--bind", "127.0.0.1", "--port", "0"]
    with subprocess.Popen([*_COMMAND, *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "Connection refused" in process.stderr.readline()  # the first look has failed, and is told
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()


def test_an_image_without_a_version_is_refused() -> None:
    done = subprocess.run([*_COMMAND, "--image", "mesh"], capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 2
    assert "names no version" in done.stderr
