"""`headgate proxy` as a process with its real worker: how it ends, how its worker ends, what each of them loads."""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.lab.namespaces import Netns

MakeNetns = Callable[[], Netns]
WAIT_S = 20.0


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Waits for a condition, asked every few milliseconds, within a bound."""
    ends_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_s, f"not within {WAIT_S:g} s: {what}"
        time.sleep(0.01)


@contextmanager
def headgate_proxy(netns: Netns, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command in its own namespace, its log on standard error; killed on leaving if it still runs."""
    command = [sys.executable, "-c", "from agent.cli import main; main()", "proxy", "--workers", "1", *options]
    process = netns.popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def worker_of(supervisor: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The log up to `text`, and what came along with it."""
    assert process.stderr is not None
    seen = ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while text not in seen:
            assert selector.select(WAIT_S), f"no {text!r} in the log within {WAIT_S:g} s:\n{seen}"
            # Not readline: what its buffer holds already would not wake the selector.
            part = os.read(process.stderr.fileno(), 1 << 16)
            assert part, f"ended without {text!r} in its log:\n{seen}"
            seen += part.decode()
    return seen


def test_sigterm_ends_it_with_status_0_and_its_worker_with_it(tmp_path: Path, make_netns: MakeNetns) -> None:
    with headgate_proxy(make_netns(), "--run-dir", str(tmp_path)) as proxy:
        read_until(proxy, "worker 0 is ready")
        worker = worker_of(proxy)
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(WAIT_S) == 0
        assert not Path(f"/proc/{worker}").exists()


def test_a_killed_supervisor_takes_its_worker_along(tmp_path: Path, make_netns: MakeNetns) -> None:
    with headgate_proxy(make_netns(), "--run-dir", str(tmp_path)) as proxy:
        read_until(proxy, "worker 0 is ready")
        # Stopped, so that it cannot notice by itself that its supervisor is gone.
        worker = worker_of(proxy)
        os.kill(worker, signal.SIGSTOP)
        proxy.kill()
        proxy.wait(WAIT_S)
        wait_for("the worker's end", lambda: not _runs(worker))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_ctrl_c_reaches_the_supervisor_alone(tmp_path: Path, make_netns: MakeNetns) -> None:
    with headgate_proxy(make_netns(), "--run-dir", str(tmp_path)) as proxy:
        read_until(proxy, "worker 0 is ready")
        os.kill(worker_of(proxy), signal.SIGINT)
        proxy.send_signal(signal.SIGINT)
        log = read_until(proxy, "ending:")
        assert proxy.wait(WAIT_S) == 0
        assert "ended unasked" not in log


def test_a_real_worker_that_is_killed_is_replaced(tmp_path: Path, make_netns: MakeNetns) -> None:
    with headgate_proxy(make_netns(), "--run-dir", str(tmp_path)) as proxy:
        read_until(proxy, "worker 0 is ready")
        os.kill(worker_of(proxy), signal.SIGKILL)
        log = read_until(proxy, "worker 0 is ready")
        assert "worker 0 ended unasked (signal 9, Killed)" in log


def test_a_port_in_use_is_exit_status_1_with_the_remedy(tmp_path: Path, make_netns: MakeNetns) -> None:
    netns = make_netns()
    with netns.listen("127.0.0.1", 15020), headgate_proxy(netns, "--run-dir", str(tmp_path)) as proxy:
        _, log = proxy.communicate(timeout=WAIT_S)
        assert proxy.returncode == 1
        assert "the metrics port 15020 on 0.0.0.0 cannot be opened: Address already in use" in log
        assert "--metrics-port" in log
        assert "Traceback" not in log


def test_a_config_directory_that_is_a_file_is_wrong_usage(tmp_path: Path, make_netns: MakeNetns) -> None:
    (tmp_path / "file").write_text("")
    options = ("--run-dir", str(tmp_path), "--config-dir", str(tmp_path / "file"))
    with headgate_proxy(make_netns(), *options) as proxy:
        _, log = proxy.communicate(timeout=WAIT_S)
        assert proxy.returncode == 2
        assert "--config-dir" in log


def modules_loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("heavy", ["aiohttp", "prometheus_client", "yaml", "google.protobuf", "asyncio", "agent"])
def test_a_worker_loads_nothing_that_it_does_not_use(heavy: str) -> None:
    assert heavy not in modules_loaded_by("import proxy.worker")


def test_the_supervisor_loads_nothing_of_the_agent() -> None:
    loaded = modules_loaded_by("import agent.cli, proxy.cli, proxy.supervisor.service")
    assert {name for name in loaded if name.split(".")[0] == "agent"} == {"agent", "agent.cli"}
