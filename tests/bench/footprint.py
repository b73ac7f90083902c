"""What headgate costs beside requests: the time that rules take, and memory."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from agent.kernel import iproute, nft_replay
from agent.kernel.netns import NetnsThreads, open_netns
from agent.lab.figures import percentile
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.plan import PlanSettings, RedirectPlan
from agent.plan.render.nft import install_script
from agent.supervisor import inside
from tests.bench import bulk, meter
from tests.bench.results import Fact
from tests.bench.testbed import ONE_WORKER, plan_of

PODS: Final = 250
BULK_BYTES: Final = 1 << 30
_SETTLE_S: Final = 5.0
"""The agent gives memory back two seconds after the last rules; the figure is of an agent that rests."""

Say = Callable[[str], None]


def measure(say: Say) -> tuple[Fact, ...]:
    """All figures. Raises LabError, KernelRefused."""
    return (*_rules_one_by_one(say), *_many_pods(say), *_worker(say))


def _spec() -> LabSpec:
    return LabSpec(tuple(PodSpec(f"pod-{number}") for number in range(PODS)))


def _rules_one_by_one(say: Say) -> tuple[Fact, ...]:
    say(f"rules into {PODS} fresh namespaces, one after the other")
    with Lab(_spec()) as lab:
        ordered_ns = sorted(asyncio.run(_install_each(lab.pods)))
    return (
        Fact("rules_p50_ms", "nft and ip rule into a fresh netns, p50", percentile(ordered_ns, 0.5) / 1e6, "ms"),
        Fact("rules_p99_ms", "nft and ip rule into a fresh netns, p99", percentile(ordered_ns, 0.99) / 1e6, "ms", 2.5),
    )


def _many_pods(say: Say) -> tuple[Fact, ...]:
    say(f"rules into {PODS} fresh namespaces, all at once")
    with Lab(_spec()) as lab:
        seconds = asyncio.run(_install_all(lab.pods))
        say(f"the agent with {PODS} pods")
        agent = _start(lab)
        time.sleep(_SETTLE_S)
        agent_mb = meter.memory_mb(agent)
    return (
        Fact("rules_250_s", f"{PODS} fresh pods, in all", seconds, "s", 0.5),
        Fact("agent_mb", f"agent, resident, {PODS} pods", agent_mb, "MB", 60),
    )


def _start(lab: Lab) -> int:
    """Agent and proxy with every pod proved; the agent's pid."""
    lab.start_proxy()
    agent = lab.start_agent()
    lab.wait_ready()
    lab.wait_proved(timeout_s=60)
    return agent.pid


async def _install_each(pods: Sequence[LabPod]) -> list[int]:
    """Nanoseconds from opening the namespace to rules and return path in force, on the agent's threads."""
    threads = NetnsThreads()
    taken: list[int] = []
    try:
        for pod in pods:
            plan = plan_of(pod)
            began = time.perf_counter_ns()
            with open_netns(pod.netns_path) as netns:
                await threads.run(netns, _rules, plan)
            taken.append(time.perf_counter_ns() - began)
    finally:
        threads.close()
    return taken


def _rules(plan: RedirectPlan) -> None:
    """nft and ip rule, nothing else."""
    iproute.ensure_return_path(plan.return_path)
    nft_replay.apply_fresh(install_script(plan, (), replace=False))


async def _install_all(pods: Sequence[LabPod]) -> float:
    """Seconds until every pod is done, with all that the agent does there: it also reads the sockets, twice."""
    threads = NetnsThreads()

    async def visit(pod: LabPod) -> None:
        with open_netns(pod.netns_path) as netns:
            await threads.run(netns, inside.install, plan_of(pod), PlanSettings())

    try:
        began = time.perf_counter()
        await asyncio.gather(*(visit(pod) for pod in pods))
        return time.perf_counter() - began
    finally:
        threads.close()


# ── The worker ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _worker(say: Say) -> tuple[Fact, ...]:
    say("the worker's memory")
    pods = (PodSpec("client"), PodSpec("server", labels=(("headgate.io/mesh", "disabled"),)))
    with Lab(LabSpec(pods, (bulk.OBJECTS,))) as lab, bulk.server(lab.pod("server")):
        proxy = lab.start_proxy(*ONE_WORKER)
        lab.start_agent()
        lab.wait_ready()
        lab.wait_proved()
        worker = meter.family(proxy.pid)[1]
        idle_mb = meter.memory_mb(worker)
        say("1 GiB up")
        up_mb = _growth(worker, lambda: bulk.upload(lab.pod("client"), BULK_BYTES))
        say("1 GiB down")
        down_mb = _growth(worker, lambda: bulk.download(lab.pod("client"), BULK_BYTES))
    return (
        Fact("worker_idle_mb", "worker, resident, idle", idle_mb, "MB", 60),
        Fact("upload_growth_mb", "worker's peak grows by, 1 GiB request body", up_mb, "MB", 8),
        Fact("download_growth_mb", "worker's peak grows by, 1 GiB response body", down_mb, "MB", 8),
    )


def _growth(pid: int, transfer: Callable[[], None]) -> float:
    """How far the peak during the transfer exceeds what was resident before, in MB."""
    before_mb = meter.memory_mb(pid)
    meter.forget_peak(pid)
    transfer()
    return max(0.0, meter.memory_mb(pid, "VmHWM") - before_mb)
