"""A proxy inside a pod, as the user that the pod's rules know: a real Envoy, or headgate's own, and what it counts."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from agent.lab import processes, state
from agent.lab.node import Lab, LabPod, headgate
from agent.lab.processes import TERM_GRACE_S
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PASSTHROUGH4, PASSTHROUGH6, PROXY_METRICS_PORT

USER: Final = 1337
START_S: Final = 30.0
END_S: Final = 20.0
ENVOY_ADMIN_PORT: Final = 15000
PASSTHROUGH: Final = {4: PASSTHROUGH4, 6: PASSTHROUGH6}
_HERE: Final = Path(__file__).parent
_OPENED: Final = re.compile(r'^istio_tcp_connections_opened_total\{.*reporter="(\w+)".*\} (\d+)')
_REQUESTS: Final = re.compile(r'^istio_requests_total\{.*reporter="(\w+)".*\} (\d+)')


class Kind(Enum):
    ENVOY = "envoy"
    PLAIN = "headgate"  # without any capability
    TRANSPARENT = "headgate-transparent"  # with CAP_NET_ADMIN

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Counts:
    """Connections (of HTTP: requests) that went through it so far."""

    outbound: int
    inbound: int

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(self.outbound - before.outbound, self.inbound - before.inbound)


def as_user(*command: str, capabilities: Sequence[str] = (), user: int = USER) -> list[str]:
    """The command run by this user, with these capabilities and none besides (setpriv(1))."""
    kept = ",".join(("-all", *(f"+{name}" for name in capabilities)))
    identity = (f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs")
    return ["setpriv", *identity, f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}", *command]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """`directory` is readable to everybody, and its `run` the user's own."""

    lab: Lab
    pod: LabPod
    kind: Kind
    directory: Path
    user: int = USER

    @property
    def name(self) -> str:
        return f"{self.pod.name}.sidecar"

    def command(self, *options: str) -> list[str]:
        if self.kind is Kind.ENVOY:
            envoy = str(Path(sys.executable).with_name("envoy"))
            fixed = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
            return as_user(envoy, "-c", str(self.directory / "envoy.yaml"), *fixed, *options, user=self.user)
        run, config = self.directory / "run", self.directory / "config"
        capabilities = ("net_admin",) if self.kind is Kind.TRANSPARENT else ()
        own = ("--run-dir", str(run), "--config-dir", str(config), "--pod-name", self.pod.name, "--drain-s", "1")
        return as_user(*headgate(), "proxy", "--sidecar", *own, *options, capabilities=capabilities, user=self.user)

    @contextmanager
    def running(self, *options: str, around: Sequence[str] = ()) -> "Iterator[Running]":
        """`around`: words of a command that runs it."""
        process = processes.start(
            self.pod.netns,
            [*around, *self.command(*options)],
            log=self.log_path,
            pid_file=self.lab.paths.pids / self.name,
            directory=self.directory,
            environment={state.MARKER: self.lab.paths.name},
        )
        running = Running(self, process)
        try:
            wait_for("the sidecar to be ready", running.is_ready, running.explain)
            yield running
        finally:
            running.kill()

    @property
    def log_path(self) -> Path:
        return self.directory / "log"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def get(self, port: int, path: str) -> tuple[int, str]:
        """What it answers over loopback, which no rule steers."""
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.sock = self.pod.netns.connect("127.0.0.1", port)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def counts(self) -> Counts:
        if self.kind is Kind.ENVOY:
            _, body = self.get(ENVOY_ADMIN_PORT, "/stats?format=json&filter=downstream_cx_total")
            stats = {stat["name"]: stat["value"] for stat in json.loads(body)["stats"] if "name" in stat}
            return Counts(*(stats.get(f"tcp.{way}.downstream_cx_total", 0) for way in ("outbound", "inbound")))
        _, body = self.get(PROXY_METRICS_PORT, "/metrics")
        found = {"source": 0, "destination": 0}
        for line in body.splitlines():
            if match := _OPENED.match(line) or _REQUESTS.match(line):
                found[match.group(1)] += int(match.group(2))
        return Counts(found["source"], found["destination"])

    def listens(self) -> bool:
        found = self.pod.run(["ss", "-Htln", f"sport = :{OUTBOUND_PORT} or sport = :{INBOUND_PORT}"])
        return bool(found.stdout.strip())


@dataclass(frozen=True, slots=True)
class Running:
    sidecar: Sidecar
    process: "subprocess.Popen[bytes]"

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"it ended\n{self.sidecar.log()}"
        port, path = (ENVOY_ADMIN_PORT, "/ready") if self.sidecar.kind is Kind.ENVOY else (15021, "/healthz/ready")
        try:
            return self.sidecar.get(port, path)[0] == 200
        except OSError:
            return False

    def explain(self) -> str:
        return self.sidecar.log()

    def kill(self) -> None:
        """SIGKILL; returns when nobody listens any more."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        wait_for("its listeners to be closed", lambda: not self.sidecar.listens(), self.explain)

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(TERM_GRACE_S)


@contextmanager
def prepared(lab: Lab, pod: LabPod, kind: Kind, user: int = USER) -> Iterator[Sidecar]:
    """Its files, where its user can read them: the lab's directory is root's alone."""
    with tempfile.TemporaryDirectory(prefix="hg-sidecar-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for sub in ("run", "config"):
            (directory / sub).mkdir(mode=0o755)
        os.chown(directory / "run", user, user)
        for source, target in (("envoy.yaml", "envoy.yaml"), ("objects.yaml", "config/objects.yaml")):
            text = (_HERE / source).read_text()
            for family in (4, 6):
                text = text.replace(f"@address{family}@", str(pod.address4 if family == 4 else pod.address6))
            (directory / target).write_text(text)
        yield Sidecar(lab, pod, kind, directory, user)


def refusal(pod: LabPod, command: Sequence[str]) -> tuple[int, str]:
    """Exit status, and all that it says, of a sidecar that does not start."""
    done = pod.run(command, check=False, timeout_s=END_S)
    return done.returncode, done.stdout + done.stderr


def wait_for(what: str, condition: Callable[[], bool], explain: Callable[[], str] = str) -> None:
    """Within START_S."""
    ends_s = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < ends_s, f"not within {START_S:g} s: {what}\n{explain()}"
        time.sleep(0.02)
