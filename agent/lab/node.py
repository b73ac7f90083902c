"""A lab as Python sees it: tests, bench and demo build one, talk through it and take it down.

with Lab(default_spec()) as lab:
    lab.start()
    lab.pod("client").run(["curl", "-sf", "http://10.96.0.10/"])
"""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from agent.lab import admin, objects, processes, state, topology
from agent.lab.errors import LabError
from agent.lab.namespaces import Netns
from agent.lab.objects import PodFacts
from agent.lab.spec import NODE_ADDRESS4, LabSpec, PodSpec, ServerSpec, address4, address6, default_spec
from agent.lab.state import LabPaths
from proxy.api.constants import ADMIN_SOCKET, PROXY_ADMIN_SOCKET, PROXY_READY_PORT

READY_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02
_PROVED: Final = "proved"
_NOT_YET: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""No listener yet; or not even a local route: the kernel adds an IPv6 address's from a work queue (addrconf_dad_work),
which a busy machine leaves waiting."""

P = ParamSpec("P")
R = TypeVar("R")
_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class LabPod:
    """A pod of a running lab."""

    spec: PodSpec
    netns: Netns
    uid: str
    address4: IPv4Address | None
    address6: IPv6Address | None
    directory: Path

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def netns_path(self) -> Path:
        return self.netns.path

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Netns.popen in this pod; the lab's end ends the process too."""
        return self.netns.popen(command, **options)

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Netns.run in this pod."""
        return self.netns.run(command, **options)

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Netns.call in this pod."""
        return self.netns.call(function, *args, **kwargs)


class Lab:
    """One throw-away node. `name` defaults to one that no other lab of this machine has; `owned` labs are removed by
    `remove_abandoned` when this process dies without `down`."""

    def __init__(self, spec: LabSpec | None = None, *, name: str | None = None, owned: bool = True) -> None:
        self.spec = default_spec() if spec is None else spec
        self.paths = LabPaths(name or f"t{os.getpid()}x{next(_counter)}")
        self._owned = owned
        self._pods: dict[str, LabPod] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._annotations: dict[str, dict[str, str]] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    # ── Up and down ────────────────────────────────────────────────────────────────────────────────────────────────
    def up(self) -> None:
        """Network, files and server processes. On any error everything made is removed again and the error raised."""
        state.claim(self.paths, owned=self._owned)
        try:
            self._build()
            self._write_files()
            for pod in self._pods.values():
                for server in pod.spec.servers:
                    self.start_server(pod.name, server)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Ends and removes everything of the lab; may be called again."""
        state.remove(self.paths)
        for child in self._children.values():
            child.wait(timeout=READY_TIMEOUT_S)
        self._children.clear()

    # ── What is in it ──────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def node(self) -> Netns:
        return self.paths.node

    @property
    def run_directory(self) -> Path:
        return self.paths.run

    @property
    def config_directory(self) -> Path:
        return self.paths.config

    @property
    def pods_file(self) -> Path:
        return self.paths.pods_file

    @property
    def pods(self) -> tuple[LabPod, ...]:
        return tuple(self._pods.values())

    def pod(self, name: str) -> LabPod:
        return self._pods[name]

    def log(self, name: str) -> str:
        """What process NAME (agent, proxy or POD.SERVER) has written so far."""
        with suppress(FileNotFoundError):
            return self._log_path(name).read_text(encoding="utf-8", errors="replace")
        return ""

    # ── Agent and proxy ────────────────────────────────────────────────────────────────────────────────────────────
    def start(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Starts proxy and agent and waits until each enrolled pod is proved and the proxy is ready."""
        self.start_proxy()
        self.start_agent()
        self.wait_ready(timeout_s=timeout_s)
        self.wait_proved(timeout_s=timeout_s)

    def start_agent(
        self, *options: str, cleanup_on_exit: bool = True, pods_file: bool = True
    ) -> subprocess.Popen[bytes]:
        """`headgate agent` inside the node; removes its rules when it is ended, unless told not to. Without `pods_file`
        its pods are those that an option tells of. Does not wait."""
        files = ["--run-dir", str(self.run_directory), *(("--pods-file", str(self.pods_file)) if pods_file else ())]
        cleanup = ["--cleanup-on-exit"] if cleanup_on_exit else []
        return self._start("agent", self.node, [*headgate(), "agent", *files, *cleanup, *options])

    def start_proxy(self, *options: str, own_objects: bool = True) -> subprocess.Popen[bytes]:
        """`headgate proxy` inside the node, draining for 1 s at most (an option given here wins). Does not wait.
        Without `own_objects` it takes the agent's."""
        files = ["--run-dir", str(self.run_directory), "--drain-s", "1"]
        source = ["--config-dir", str(self.config_directory)] if own_objects else []
        return self._start("proxy", self.node, [*headgate(), "proxy", *files, *source, *options])

    def stop_agent(self, within_s: float = processes.TERM_GRACE_S) -> int:
        """SIGTERM and its exit status; then SIGKILL."""
        return self._stop("agent", within_s)

    def stop_proxy(self) -> int:
        """SIGTERM and its exit status."""
        return self._stop("proxy")

    def kill_agent(self) -> None:
        """SIGKILL: what it has done stays as it is."""
        self.kill("agent")

    def kill(self, name: str) -> None:
        """SIGKILL to `agent`, `proxy` or `POD.SERVER`; returns when it is gone."""
        self._children[name].kill()
        self._stop(name)

    def pid(self, name: str) -> int:
        """Of `agent`, `proxy` or `POD.SERVER` as it runs now."""
        return self._children[name].pid

    def workers(self) -> tuple[int, ...]:
        """Pids of the proxy's workers that live now."""
        return processes.children(self.pid("proxy"))

    def take_over_proxy(self, *options: str, own_objects: bool = True) -> subprocess.Popen[bytes]:
        """Starts the next proxy beside the one that runs, to take its place; returns the one that is to end. It is
        the lab's to end as well. Does not wait."""
        former, name = self._children.pop("proxy"), f"proxy-before-{next(_counter)}"
        self._children[name] = former
        (self.paths.pids / "proxy").replace(self.paths.pids / name)
        self.start_proxy("--take-over", *options, own_objects=own_objects)
        return former

    def agent_get(self, path: str, *, method: str = "GET", timeout_s: float = admin.TIMEOUT_S) -> Any:
        """JSON of the agent's admin socket; AdminError."""
        return admin.get_json(self.run_directory / ADMIN_SOCKET, path, method=method, timeout_s=timeout_s)

    def proxy_get(self, path: str) -> Any:
        """JSON of the proxy's admin socket; AdminError."""
        return admin.get_json(self.run_directory / PROXY_ADMIN_SOCKET, path)

    def agent_pods(self) -> list[dict[str, Any]]:
        """GET /pods of the agent; AdminError."""
        answer = self.agent_get("/pods")
        pods = answer["pods"] if isinstance(answer, dict) else answer
        return list(pods)

    def wait_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the proxy's readiness port answers 200."""

        def ready() -> bool:
            return admin.get_status(lambda: self.node.connect(NODE_ADDRESS4, PROXY_READY_PORT), "/healthz/ready") == 200

        self.wait("the proxy to be ready", ready, timeout_s=timeout_s)

    def wait_proved(self, *names: str, timeout_s: float = READY_TIMEOUT_S) -> list[dict[str, Any]]:
        """Until the agent shows these pods (default: every enrolled one) as proved; returns GET /pods."""
        wanted = names or tuple(
            name for name, labels in self._labels.items() if self._pods[name].spec.listed and not _left_out(labels)
        )

        def proved() -> bool:
            states = {pod["name"]: pod["state"] for pod in self.agent_pods()}
            return all(states.get(name) == _PROVED for name in wanted)

        self.wait(f"{', '.join(wanted)} to be {_PROVED}", proved, timeout_s=timeout_s)
        return self.agent_pods()

    def wait(self, what: str, condition: Callable[[], bool], *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the condition holds; one that raises AdminError does not hold yet. LabError, with the end of the
        logs, when the time is over or agent or proxy has ended meanwhile."""
        deadline = time.monotonic() + timeout_s
        last = ""
        while True:
            ended = [name for name in ("agent", "proxy") if (child := self._children.get(name)) and child.poll()]
            if ended:
                raise LabError(f"waiting for {what}: {ended[0]} ended\n{self._tails()}")
            try:
                if condition():
                    return
            except admin.AdminError as error:
                last = f" ({error})"
            if time.monotonic() > deadline:
                raise LabError(f"waited {timeout_s:g} s in vain for {what}{last}\n{self._tails()}")
            time.sleep(POLL_S)

    # ── Changes ────────────────────────────────────────────────────────────────────────────────────────────────────
    def write_object(self, name: str, text: str) -> None:
        """Puts NAME.yaml, Kubernetes objects with the placeholders of spec.py, into the proxy's directory in one step;
        replaces the file of the same name."""
        filled = objects.fill(text, self._facts(), {}, name)
        objects.write_atomically(self.config_directory / f"{name.removesuffix('.yaml')}.yaml", filled)

    def apply_object(self, name: str, text: str, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """`write_object`, and waits until every worker of the proxy decides by it."""
        before = self.policy_in_force()
        self.write_object(name, text)
        self.wait(f"{name} to be in force", lambda: self.policy_in_force() > before, timeout_s=timeout_s)

    def policy_in_force(self) -> int:
        """The policy generation that every worker of the proxy has taken; 0 before the first. AdminError."""
        return min((generation or 0 for generation in self.proxy_get("/policy")["in_force"]), default=0)

    def remove_object(self, name: str) -> None:
        """Takes NAME.yaml out of the proxy's directory. FileNotFoundError."""
        (self.config_directory / f"{name.removesuffix('.yaml')}.yaml").unlink()

    def set_label(self, pod: str, key: str, value: str | None) -> None:
        """Gives the pod a label, or takes it away (None), for agent and proxy alike."""
        self._set(self._labels[pod], pod, key, value)

    def set_annotation(self, pod: str, key: str, value: str | None) -> None:
        """As `set_label`, an annotation."""
        self._set(self._annotations[pod], pod, key, value)

    def _set(self, pairs: dict[str, str], pod: str, key: str, value: str | None) -> None:
        pairs.pop(key, None)
        pairs |= {} if value is None else {key: value}
        facts = self._facts()
        self.write_object(f"pod-{pod}", objects.pod_object(facts[pod]))
        objects.write_atomically(self.pods_file, objects.pods_file(list(facts.values())))

    def start_server(self, pod: str, server: ServerSpec) -> subprocess.Popen[bytes]:
        """Starts a server process in a pod and waits until its ports accept."""
        place = self._pods[pod]
        directory = place.directory / server.name
        directory.mkdir(parents=True)
        facts = self._facts()
        own = {"pod": pod, "directory": str(directory)}
        own |= {f"address{4 if '.' in text else 6}": text for text in facts[pod].addresses}
        where = f"server {server.name} of pod {pod}"
        for name, text in server.files:
            (directory / name).write_text(objects.fill(text, facts, own, f"{where}: {name}"), encoding="utf-8")
        command = [objects.fill(word, facts, own, where) for word in server.command]
        child = self._start(f"{pod}.{server.name}", place.netns, command, directory=directory)
        for port in server.ports:
            self._wait_port(place, port, child, f"{pod}.{server.name}")
        return child

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _build(self) -> None:
        named = [(self.paths.pod_netns(pod.name).name, pod) for pod in self.spec.pods]
        _, made = topology.build(self.paths.node.name, named)
        for index, (pod, netns) in enumerate(zip(self.spec.pods, made, strict=True)):
            self._pods[pod.name] = LabPod(
                spec=pod,
                netns=netns,
                uid=f"lab-{self.paths.name}-{pod.name}",
                address4=address4(index) if 4 in pod.families else None,
                address6=address6(index) if 6 in pod.families else None,
                directory=self.paths.directory / "servers" / pod.name,
            )
            self._labels[pod.name] = dict(pod.labels)
            self._annotations[pod.name] = dict(pod.annotations)

    def _facts(self) -> dict[str, PodFacts]:
        return {name: self._fact(name, pod) for name, pod in self._pods.items()}

    def _fact(self, name: str, pod: LabPod) -> PodFacts:
        said = dict(self._labels[name]), tuple(self._annotations[name].items())
        return PodFacts(pod.spec, pod.uid, pod.netns.name, pod.address4, pod.address6, *said)

    def _write_files(self) -> None:
        facts = self._facts()
        objects.write_atomically(self.pods_file, objects.pods_file(list(facts.values())))
        for name, fact in facts.items():
            self.write_object(f"pod-{name}", objects.pod_object(fact))
        for path in self.spec.objects:
            self.write_object(path.name, path.read_text(encoding="utf-8"))

    def _start(
        self, name: str, netns: Netns, command: Sequence[str], *, directory: Path | None = None
    ) -> subprocess.Popen[bytes]:
        self._children[name] = processes.start(
            netns,
            command,
            log=self._log_path(name),
            pid_file=self.paths.pids / name,
            directory=directory or self.paths.directory,
            environment={state.MARKER: self.paths.name, "HEADGATE_RUN_DIR": str(self.run_directory)},
        )
        return self._children[name]

    def _stop(self, name: str, within_s: float = processes.TERM_GRACE_S) -> int:
        child = self._children.pop(name)
        child.terminate()
        try:
            return child.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()
        finally:
            (self.paths.pids / name).unlink(missing_ok=True)

    def _wait_port(self, pod: LabPod, port: int, child: subprocess.Popen[bytes], name: str) -> None:
        for address in (pod.address4, pod.address6):
            if address is None:
                continue
            deadline = time.monotonic() + READY_TIMEOUT_S
            while True:
                try:
                    pod.netns.connect(address, port).close()
                    break
                except OSError as error:
                    if error.errno not in _NOT_YET:
                        raise
                if child.poll() is not None or time.monotonic() > deadline:
                    raise LabError(f"{name} does not accept on {address} port {port}:\n{_tail(self.log(name))}")
                time.sleep(POLL_S)

    def _log_path(self, name: str) -> Path:
        return self.paths.logs / f"{name}.log"

    def _tails(self) -> str:
        return "\n".join(f"--- end of {name}'s log\n{_tail(self.log(name))}" for name in ("agent", "proxy"))


def headgate() -> list[str]:
    """The command that starts headgate: the entry point beside this interpreter, else the module."""
    beside = Path(sys.executable).with_name("headgate")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "agent"]


def _left_out(labels: dict[str, str]) -> bool:
    return labels.get("headgate.io/mesh") == "disabled"


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.splitlines()[-lines:])
