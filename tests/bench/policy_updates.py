"""What a steady load notices of policy that changes twenty times a second: 1,000 Services with 20,000 endpoints and
their pods are in force, and with each update an endpoint goes, a weight moves, or a pod's labels change. Windows with
and without updates take turns on one load. The objects come over a stream of the bench's own instead of the agent's.
"""

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Final, Self

import yaml

from agent.lab.load import Shape
from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab
from proxy.api.constants import FDS_SOCKET, OBJECTS_SOCKET, ZDS_SOCKET
from tests.bench import testbed
from tests.bench.results import Fact

SERVICES: Final = 1_000
ENDPOINTS: Final = 20
"""Of each Service."""
UPDATES_PER_S: Final = 20
_PAIRS: Final = 5
_WINDOW_S: Final = 3.0
_CONNECTIONS: Final = 8
_LOAD: Final = Shape(per_s=600)
"""A third of what one worker takes on a busy machine of two cores: a queue of the load's own is not to be measured."""
_READY_S: Final = 60.0
_BOUND: Final = 1.2
_NAMESPACE: Final = "bench"

Say = Callable[[str], None]
Object = dict[str, Any]


def measure(say: Say) -> tuple[Fact, ...]:
    """Raises LabError."""
    say(f"{SERVICES} Services with {SERVICES * ENDPOINTS} endpoints")
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        run = lab.paths.directory / "bench"
        run.mkdir()
        for name in (ZDS_SOCKET, FDS_SOCKET):
            (run / name).symlink_to(lab.run_directory / name)
        agents = lab.run_directory / OBJECTS_SOCKET
        stream = stack.enter_context(Stream(run / OBJECTS_SOCKET, agents, _snapshot(lab)))
        lab.start_agent()
        lab.wait("the agent's own stream", agents.exists)
        lab.start_proxy("--run-dir", str(run), *testbed.ONE_WORKER, own_objects=False)
        lab.wait_ready(timeout_s=_READY_S)
        lab.wait_proved()
        return _windows(lab, stream, say)


def _windows(lab: Lab, stream: "Stream", say: Say) -> tuple[Fact, ...]:
    url = "http://10.96.0.10/"
    seconds = 4 * _PAIRS * _WINDOW_S
    with RunningLoad(lab.pod("client"), [url], connections=_CONNECTIONS, seconds=seconds, shape=_LOAD) as load:
        load.more(500, timeout_s=20)
        for pair in range(_PAIRS):
            say(f"pair {pair + 1} of {_PAIRS}")
            for kind in ("quiet", "busy") if pair % 2 else ("busy", "quiet"):
                with stream.updating() if kind == "busy" else ExitStack():
                    load.begin(f"{kind}-{pair}")
                    time.sleep(_WINDOW_S)
        load.begin("end")
        found = load.stop()
    quiet, busy = (
        [found["phases"][f"{kind}-{pair}"]["latency_ns"]["p99"] for pair in range(_PAIRS)] for kind in ("quiet", "busy")
    )
    ratio = median(one / other for one, other in zip(busy, quiet, strict=True))
    what = f"{UPDATES_PER_S} policy updates/s, {SERVICES:,} Services"
    return (
        Fact("policy_updates_p99_ratio", f"{what}: p99 with/without", ratio, "", _BOUND),
        Fact("policy_updates_p99_ms", "p99 with updates", median(busy) / 1e6, "ms"),
        Fact("policy_quiet_p99_ms", "p99 without", median(quiet) / 1e6, "ms"),
        Fact("policy_updates_sent_per_s", "updates sent", stream.sent / (_PAIRS * _WINDOW_S), "/s"),
        Fact("policy_updates_failed", "requests failed", found["all"]["failed"], "", 0),
    )


class Stream:
    """objects.sock of a proxy's run directory: says `snapshot`, then updates while it is asked to, and passes on to the
    agent's what the proxy has to say (its proofs)."""

    def __init__(self, path: Path, agent: Path, snapshot: bytes) -> None:
        self._agent = agent
        self._snapshot = snapshot
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._updating = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="bench-objects")
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # accept returns
        self._thread.join()
        self._listener.close()

    @contextmanager
    def updating(self) -> Iterator[None]:
        self._updating.set()
        try:
            yield
        finally:
            self._updating.clear()

    def _serve(self) -> None:
        with suppress(OSError), ExitStack() as stack:
            proxy = stack.enter_context(self._listener.accept()[0])
            agent = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            agent.connect(str(self._agent))
            passing = threading.Thread(target=_pass_on, args=(proxy, agent), name="bench-proofs")
            passing.start()
            stack.callback(passing.join)
            stack.callback(_shut, proxy)
            proxy.sendall(b'{"type":"hello","objects":"stream"}\n' + self._snapshot + b'{"type":"synced"}\n')
            for turn in itertools.count():
                if self._ending.wait(1 / UPDATES_PER_S):
                    return
                if self._updating.is_set():
                    proxy.sendall(_line(_update(turn)))
                    self.sent += 1


def _pass_on(proxy: socket.socket, agent: socket.socket) -> None:
    with suppress(OSError):
        while data := proxy.recv(65536):
            agent.sendall(data)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


# ── Objects ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _snapshot(lab: Lab) -> bytes:
    """The lab's own objects and the many others."""
    files = sorted(lab.config_directory.glob("*.yaml"))
    own = [body for file in files for body in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    made = (_service, _slice, _subsets)
    many = [make(number) for number in range(SERVICES) for make in made]
    many += [_route(number, 90) for number in range(SERVICES)]
    many += [_pod(number, "v1") for number in range(SERVICES * ENDPOINTS)]
    return b"".join(map(_line, [*own, *many]))


def _update(turn: int) -> Object:
    number = turn % SERVICES
    kinds = (_slice(number, turn % ENDPOINTS), _route(number, turn % 101), _pod(number, f"v{turn % 3}"))
    return kinds[turn % len(kinds)]


def _line(body: Object) -> bytes:
    return json.dumps({"type": "object", "object": body}).encode() + b"\n"


def _meta(name: str, **labels: str) -> Object:
    return {"name": name, "namespace": _NAMESPACE, "labels": labels}


def _address(number: int) -> str:
    return f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _service(number: int) -> Object:
    spec = {"clusterIP": f"10.98.{number >> 8}.{number & 255}", "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(f"s{number}"), "spec": spec}


def _pod(number: int, version: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _meta(f"p{number}", app=f"s{number // ENDPOINTS}", version=version),
        "status": {"podIPs": [{"ip": _address(number)}]},
    }


def _slice(number: int, without: int = -1) -> Object:
    pods = [number * ENDPOINTS + index for index in range(ENDPOINTS) if index != without]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _meta(f"s{number}", **{"kubernetes.io/service-name": f"s{number}"}),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [_address(pod)], "targetRef": {"kind": "Pod", "name": f"p{pod}"}} for pod in pods],
    }


def _subsets(number: int) -> Object:
    subsets = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": _meta(f"s{number}"),
        "spec": {"host": f"s{number}", "subsets": subsets},
    }


def _route(number: int, weight: int) -> Object:
    split = [
        {"destination": {"host": f"s{number}", "subset": version}, "weight": share}
        for version, share in (("v1", weight), ("v2", 100 - weight))
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": _meta(f"s{number}"),
        "spec": {"hosts": [f"s{number}"], "http": [{"route": split}]},
    }
