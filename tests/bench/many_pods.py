"""A node of 250 enrolled pods: announcing them, standing by, and replacing all of them at once."""

import re
import socket
import time
from collections.abc import Callable, Collection
from typing import Final

import yaml
from pyroute2 import IPRoute

from agent.lab import namespaces, topology
from agent.lab.errors import LabError
from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.lab.objects import write_atomically
from agent.lab.spec import NODE_ADDRESS4, NODE_ADDRESS6, PREFIX4, PREFIX6, LabSpec, PodSpec
from proxy.api.constants import AGENT_METRICS_PORT
from tests.bench import meter, pod_wires
from tests.bench.results import Fact
from tests.bench.verify import metrics_page

NAMES: Final = frozenset({"announce", "idle-agent", "replace-250"})
PODS: Final = 250
_SETTLE_S: Final = 8.0
"""Every first proof is taken, and the agent has given memory back."""
_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.05
_ENROLLED: Final = frozenset({"installed", "proved"})

Say = Callable[[str], None]


def measure(names: Collection[str], seconds: int, say: Say) -> tuple[Fact, ...]:
    """The figures of `names`, on one node. Raises LabError."""
    facts: list[Fact] = []
    with Lab(LabSpec(tuple(PodSpec(f"pod-{number}") for number in range(PODS)))) as lab:
        say(f"enrolling {PODS} pods")
        proxy = lab.start_proxy()
        agent = lab.start_agent()
        lab.wait_ready()
        lab.wait_proved(timeout_s=60)
        if "announce" in names:
            facts.append(_announce(lab))
        if "idle-agent" in names:
            pods = [(pod.netns, [a for a in (pod.address4, pod.address6) if a is not None]) for pod in lab.pods]
            pod_wires.introduce(lab.node, (NODE_ADDRESS4, NODE_ADDRESS6), pods)
            time.sleep(_SETTLE_S)
            facts += _idle(agent.pid, meter.family(proxy.pid), seconds, say)
        if "replace-250" in names:
            facts += _replace(lab, say)
    return tuple(facts)


def _announce(lab: Lab) -> Fact:
    page = metrics_page(lambda: lab.node.connect(NODE_ADDRESS4, AGENT_METRICS_PORT))
    p99_ms = quantile(page, "headgate_announce_seconds", 0.99) * 1e3
    return Fact("announce_p99_ms", f"announce to ack, p99 at {PODS} pods at once", p99_ms, "ms", 50)


def quantile(page: str, name: str, share: float) -> float:
    """Of a histogram on a metrics page, as Prometheus' histogram_quantile tells it: within the bucket by proportion.
    LabError when it has counted nothing."""
    found = re.findall(rf'^{name}_bucket{{[^}}]*le="([^"]+)"[^}}]*}} (\S+)$', page, re.MULTILINE)
    counts: dict[float, float] = {}
    for bound, count in found:
        counts[float(bound)] = counts.get(float(bound), 0) + float(count)
    buckets = sorted(counts.items())
    if not buckets or buckets[-1][1] == 0:
        raise LabError(f"{name} has counted nothing")
    wanted = share * buckets[-1][1]
    below_bound = below_count = 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf"):
                return below_bound
            return below_bound + (bound - below_bound) * (wanted - below_count) / (count - below_count)
        below_bound, below_count = bound, count
    return below_bound


def _idle(agent: int, proxy: tuple[int, ...], seconds: int, say: Say) -> tuple[Fact, ...]:
    say(f"{PODS} idle pods for {seconds} s")
    before = meter.cpu_us(agent), meter.cpu_us(proxy[0]), meter.cpu_us(*proxy[1:])
    began = time.monotonic()
    time.sleep(seconds)
    took_us = (time.monotonic() - began) * 1e6
    after = meter.cpu_us(agent), meter.cpu_us(proxy[0]), meter.cpu_us(*proxy[1:])
    shares = [100 * (now - then) / took_us for now, then in zip(after, before, strict=True)]
    return (
        Fact("idle_agent_cpu", f"agent with {PODS} idle pods, over {seconds} s", shares[0], "% of a core", 3),
        Fact("idle_supervisor_cpu", "the proxy's supervisor meanwhile", shares[1], "% of a core"),
        Fact("idle_workers_cpu", "its workers, together", shares[2], "% of a core"),
    )


# ── All pods replaced ──────────────────────────────────────────────────────────────────────────────────────────────
def _replace(lab: Lab, say: Say) -> tuple[Fact, ...]:
    """The namespaces of all pods are deleted while as many new ones, made beforehand, are named to the agent."""
    say(f"making {PODS} namespaces to come")
    document = yaml.safe_load(lab.pods_file.read_text(encoding="utf-8"))
    former = [pod.netns for pod in lab.pods]
    for index, entry in enumerate(document["pods"]):
        netns = namespaces.create(f"{lab.paths.prefix}new-{index}")
        _connect(lab, netns, index, entry["addresses"])
        entry |= {"netns": netns.name, "uid": f"new-{index}"}
    text = yaml.safe_dump(document, sort_keys=False)
    say(f"replacing {PODS} pods")
    began = time.monotonic()
    for netns in former:
        namespaces.delete(netns)
    deleted_s = time.monotonic() - began
    began = time.monotonic()
    write_atomically(lab.pods_file, text)
    enrolled_s = _until(lab, _ENROLLED, began)
    proved_s = _until(lab, frozenset({"proved"}), began)
    return (
        Fact("replace_250_s", f"{PODS} pods replaced: seen to installed", enrolled_s, "s", 1),
        Fact("replace_250_proved_s", "until all are proved", proved_s, "s"),
        Fact("replace_250_deleting_s", "deleting the former namespaces' names, before", deleted_s, "s"),
    )


def _until(lab: Lab, states: frozenset[str], began: float) -> float:
    """Seconds until every new pod is in one of these states."""
    while True:
        shown = {pod["uid"]: pod["state"] for pod in lab.agent_pods() if pod["uid"].startswith("new-")}
        now = time.monotonic()
        if len(shown) == PODS and all(state in states for state in shown.values()):
            return now - began
        if now - began > _WITHIN_S:
            left = sorted(f"{uid} is {state}" for uid, state in shown.items() if state not in states)
            raise LabError(f"not all replaced in {_WITHIN_S:g} s; {len(shown)} seen; {'; '.join(left[:5])}")
        time.sleep(_POLL_S)


def _connect(lab: Lab, netns: Netns, index: int, addresses: list[str]) -> None:
    """A veth pair to the node's bridge and the addresses of the pod that it replaces, as topology.py gives them."""
    for key in ("net/ipv6/conf/default/accept_dad", "net/ipv6/conf/all/accept_dad"):
        netns.write_sysctl(key, "0")
    lab.node.call(_link, f"nveth{index}", netns)
    netns.call(_address, addresses)


def _link(name: str, netns: Netns) -> None:
    with IPRoute() as ip, netns.path.open() as namespace:
        ip.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": namespace.fileno()})
        bridge = ip.link_lookup(ifname=topology.BRIDGE)[0]
        ip.link("set", index=ip.link_lookup(ifname=name)[0], master=bridge, state="up")


def _address(addresses: list[str]) -> None:
    with IPRoute() as ip:
        for device in ("lo", "eth0"):
            ip.link("set", index=ip.link_lookup(ifname=device)[0], state="up")
        eth0 = ip.link_lookup(ifname="eth0")[0]
        for address in addresses:
            family6 = ":" in address
            ip.addr(
                "add", index=eth0, address=address, prefixlen=PREFIX6 if family6 else PREFIX4, flags=2 if family6 else 0
            )
            ip.route(
                "add", dst="default", oif=eth0, family=socket.AF_INET6 if family6 else socket.AF_INET,
                gateway=str(NODE_ADDRESS6 if family6 else NODE_ADDRESS4),
            )  # fmt: skip
