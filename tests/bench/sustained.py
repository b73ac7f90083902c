"""Connections a second for a minute, one request each: what fills up slowly (ports, conntrack, memory) is full by then.

Outbound: the client's pod is behind the proxy, the server is not; inbound: the other way round. headgate as HTTP and as
opaque TCP beside Envoy's tcp_proxy, which does the least that a proxy can do for a connection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.kernel import nft
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.bench import load, meter, testbed
from tests.bench.load import LoadFailed, LoadSpec
from tests.bench.many_connections import server_pod
from tests.bench.measure import Plan
from tests.bench.meter import Cores
from tests.bench.results import Fact
from tests.bench.rows import WEB, Wanted

CONNECTIONS: Final = 32
_LEAST: Final = 1.0
"""Of Envoy's: the number that this part of the product promises."""
_OFF: Final = (("headgate.io/mesh", "disabled"),)


@dataclass(frozen=True, slots=True)
class Run:
    """Who calls whom; `server`: None calls the Service address."""

    name: str
    client: str
    server: str | None
    port: int


RUNS: Final = (
    Run("outbound http", "client-headgate", None, 80),
    Run("outbound envoy", "client-envoy", None, 80),
    Run("outbound tcp", "client-headgate", None, 9000),
    Run("inbound http", "client", "server-headgate", 8080),
    Run("inbound envoy", "client", "server-envoy", 8080),
    Run("inbound tcp", "client", "server-headgate", 8081),
)

Say = Callable[[str], None]


def measure(plan: Plan, say: Say) -> tuple[Fact, ...]:
    """Connections a second by run, and ratios to Envoy's. Raises LabError, LoadFailed."""
    cores = meter.two_cores()
    with Lab(_spec()) as lab:
        for pod in lab.pods:
            for key, value in testbed.SYSCTLS:
                pod.netns.write_sysctl(key, value)
        testbed.start_headgate(lab, cores)
        testbed.start_envoy(lab, "client-envoy", "envoy-tcp.yaml", 15001, cores)
        testbed.start_envoy(lab, "server-envoy", "envoy-inbound.yaml", 15006, cores)
        per_s = {}
        for run in RUNS:
            say(f"{run.name} for {plan.seconds} s")
            per_s[run.name] = _per_s(lab, run, plan.seconds, cores)
    return tuple(_facts(per_s, plan.seconds))


def _per_s(lab: Lab, run: Run, seconds: int, cores: Cores) -> float:
    host = WEB if run.server is None else str(lab.pod(run.server).address4)
    spec = LoadSpec(f"http://{host}:{run.port}/", CONNECTIONS, seconds, ("small", "close"))
    rule, through = ("in-capture", run.server) if run.server else ("out-capture", run.client)
    before = _packets(lab, through, rule)
    try:
        found = load.run(lab.pod(run.client), spec, cores.load)
    except LoadFailed as failed:
        raise LoadFailed(f"sustained, {run.name}: {failed}") from failed
    if _packets(lab, through, rule) - before < found.requests:
        raise LoadFailed(f"sustained, {run.name}: not every connection was led through the proxy")
    return found.per_s


def _packets(lab: Lab, pod: str, rule: str) -> int:
    """Connections that this rule has led to the pod's proxy."""
    return sum(counter.packets for counter in lab.pod(pod).call(nft.list_counters) if counter.rule_id == rule)


def _facts(per_s: dict[str, float], seconds: int) -> list[Fact]:
    facts = [
        Fact(f"sustained_{name.replace(' ', '_')}_per_s", f"{name}, connections/s over {seconds} s", value, "/s")
        for name, value in per_s.items()
    ]
    for way in ("outbound", "inbound"):
        for protocol in ("http", "tcp"):
            ratio = per_s[f"{way} {protocol}"] / per_s[f"{way} envoy"]
            what = f"{way} {protocol}/Envoy tcp_proxy, sustained connections/s"
            facts.append(Fact(f"sustained_{way}_{protocol}_ratio", what, ratio, "", _LEAST, Wanted.AT_LEAST))
    return facts


def _spec() -> LabSpec:
    nginx = server_pod("server").servers
    return LabSpec(
        (
            PodSpec("client-headgate"),
            PodSpec("client-envoy", labels=_OFF, listed=False),
            PodSpec("client", labels=_OFF),
            server_pod("server"),
            PodSpec("server-headgate", labels=(("app", "near"),), servers=nginx),
            PodSpec("server-envoy", labels=_OFF, servers=nginx, listed=False),
        ),
        (testbed.CONF / "connections.yaml",),
    )
