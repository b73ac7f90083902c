"""A worker on its own, told what to do by the test; and a lab whose proxy has three of them."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest
import yaml

from agent.lab import objects
from agent.lab.node import Lab
from agent.lab.spec import NODE_ADDRESS4
from proxy.api.constants import PROXY_METRICS_PORT
from tests.netns.proxy.mesh import Mesh

WORKERS = 3
VIRTUAL = ("10.96.0.10", 80)
_READY = re.compile(r"worker (\d+) is ready, pid (\d+)")


@pytest.fixture(scope="package")
def one_worker() -> Iterator[Mesh]:
    with Mesh(f"hg-wk{os.getpid()}") as mesh:
        yield mesh


@pytest.fixture
def mesh(one_worker: Mesh) -> Iterator[Mesh]:
    """`client` is served anew for each test, whatever became of it in the one before."""
    yield one_worker
    one_worker.close_all()
    one_worker.serve("client")
    one_worker.forget("client", 0.0)
    one_worker.forgotten()
    one_worker.serve("client")
    one_worker.check()


class Workers:
    """The lab's proxy as its operator sees it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def of(self, pod: str) -> list[int]:
        """Numbers of the workers that accept for a pod."""
        answer = self.lab.proxy_get("/pods")
        return next(list(one["workers"]) for one in answer if one["name"] == pod)

    def pid(self, index: int) -> int:
        """Of the newest process in this place, by the log."""
        return [int(pid) for number, pid in _READY.findall(self.lab.log("proxy")) if int(number) == index][-1]

    def send(self, index: int, number: signal.Signals) -> int:
        pid = self.pid(index)
        os.kill(pid, number)
        return pid

    def replaced(self, index: int, pid: int, timeout_s: float = 20.0) -> None:
        """Returns when another process is ready in this place and all pods are where they belong again."""
        self.lab.wait(
            f"another worker {index}",
            lambda: self.pid(index) != pid and not any(self.home_sick()),
            timeout_s=timeout_s,
        )

    def home_sick(self) -> list[str]:
        answer = self.lab.proxy_get("/pods")
        return [one["name"] for one in answer if one["workers"] != self._homes[one["name"]]]

    def remember_homes(self) -> None:
        self._homes = {one["name"]: list(one["workers"]) for one in self.lab.proxy_get("/pods")}

    def annotate(self, pod: str, workers: str | None) -> None:
        """The pod's object in the proxy's directory, with another annotation headgate.io/workers."""
        path = self.lab.config_directory / f"pod-{pod}.yaml"
        found = yaml.safe_load(path.read_text())
        annotations = found["metadata"].setdefault("annotations", {}) or {}
        annotations.pop("headgate.io/workers", None)
        if workers is not None:
            annotations["headgate.io/workers"] = workers
        found["metadata"]["annotations"] = annotations
        objects.write_atomically(path, yaml.safe_dump(found))

    def metric(self, name: str) -> float:
        """Sum over all series of a metric whose name and labels begin so."""
        connection = HTTPConnection("metrics", timeout=10)
        connection.sock = self.lab.node.connect(str(NODE_ADDRESS4), PROXY_METRICS_PORT)
        with closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture(scope="package")
def three_workers() -> Iterator[Workers]:
    with Lab() as lab:
        lab.start_proxy("--workers", str(WORKERS), "--drain-s", "20")
        lab.start_agent()
        lab.wait_ready()
        lab.wait_proved()
        workers = Workers(lab)
        workers.remember_homes()
        yield workers
