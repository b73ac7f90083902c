"""What 500 exclusions cost each new connection: nothing but the kernel, a connect(2) and an accept(2) in turn.

Two pods alike, one steered by the plan without exclusions, one by the plan with 500: ports and networks of both
families, none of which the connections are for, so that each passes every set. Outbound: from the pod to anywhere, led
to a listener on the proxy's port in the pod. Inbound: from another pod, across the bridge. One thread does both ends,
and CPU time of that thread is what counts (the softirqs that carry the handshake run on it): other work on the machine
then takes time, but not the figure. Short batches in turn, paired, and the pods change plans halfway, because no two
namespaces are equally quick.
"""

import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from agent.kernel import nft
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from agent.plan import PlanSettings, RedirectPlan, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.render.nft import install_script
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT
from tests.bench.results import Fact

EXCLUSIONS: Final = 500
_BOUND_PERCENT: Final = 2.0
_CONNECTIONS: Final = 20
"""A batch, 1 to 2 ms, so that the two of a pair meet the same weather."""
_PAIRS: Final = 600
"""Of each direction and half. A pair's ratio scatters by a tenth beside other work; the median of 1,200 by 0.5 %."""
_WARM_UP: Final = 5
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: nothing waits in TIME-WAIT
_FIRST_PORT: Final = 40000
"""Another port for each batch: no connection meets what conntrack remembers of an older one. None is excluded."""
_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
_INET: Final = int(socket.AF_INET)
_ELSEWHERE: Final = "198.51.100.7"  # RFC 5737

Say = Callable[[str], None]


def wishes() -> Steering:
    """500 exclusions, no two of which touch: half of them outbound, half inbound; ports, IPv4 and IPv6."""
    ports, networks4, networks6 = EXCLUSIONS // 4, EXCLUSIONS // 8 + 1, EXCLUSIONS // 8
    return Steering(
        exclude_outbound_ports=Ranges.of(*range(20001, 20001 + 2 * ports, 2)),
        exclude_inbound_ports=Ranges.of(*range(30001, 30001 + 2 * ports, 2)),
        exclude_outbound_networks=(*_networks4(172, networks4), *_networks6(0xFD01, networks6)),
        exclude_inbound_networks=(*_networks4(192, networks4), *_networks6(0xFD02, networks6)),
    )


def _networks4(first: int, number: int) -> Iterator[IPv4Network]:
    return (IPv4Network(f"{first}.31.{4 * index}.0/23") for index in range(number))


def _networks6(first: int, number: int) -> Iterator[IPv6Network]:
    return (IPv6Network(f"{first:x}:{2 * index:x}::/32") for index in range(number))


@dataclass(frozen=True, slots=True)
class _Bed:
    pods: tuple[LabPod, LabPod]
    listeners: dict[tuple[str, int], socket.socket]
    caller: LabPod


def measure(say: Say) -> tuple[Fact, ...]:
    """A figure a direction. Raises LabError, KernelRefused."""
    pods = [PodSpec(name, labels=(("headgate.io/mesh", "disabled"),)) for name in ("one", "other", "caller")]
    with Lab(LabSpec(tuple(pods))) as lab:
        one, other, caller = lab.pods
        bed = _Bed((one, other), {}, caller)
        try:
            for pod in bed.pods:
                for port in (OUTBOUND_PORT, INBOUND_PORT):
                    bed.listeners[pod.name, port] = pod.call(_listener, port)
            found = _both_halves(bed, say)
        finally:
            for listener in bed.listeners.values():
                listener.close()
    return tuple(_fact(direction, *figures) for direction, figures in found.items())


def _fact(direction: str, ratios: list[float], costs: list[float]) -> Fact:
    each_us = statistics.median(costs)
    what = f"new connections/s lost to {EXCLUSIONS} exclusions, {direction} ({each_us:.0f} µs of CPU each without)"
    loss = 100 * (1 - 1 / statistics.median(ratios))
    return Fact(f"exclusions_{direction}_loss", what, loss, "%", _BOUND_PERCENT)


_Found = dict[str, tuple[list[float], list[float]]]
"""By direction: cost with exclusions over cost without, pair by pair; µs a connection without."""


def _both_halves(bed: _Bed, say: Say) -> _Found:
    found: _Found = {"outbound": ([], []), "inbound": ([], [])}
    batch = 0
    settings = PlanSettings()
    for half, (without, excluding) in enumerate((bed.pods, bed.pods[::-1]), start=1):
        _install(without, plan_of(Steering(), settings))
        _install(excluding, plan_of(wishes(), settings))
        for pair in range(_WARM_UP + _PAIRS):
            say(f"500 exclusions: half {half} of 2, pair {pair} of {_PAIRS}")
            for direction, (ratios, costs) in found.items():
                order = (without, excluding) if pair % 2 else (excluding, without)
                took = {pod.name: _batch(bed, pod, direction, _FIRST_PORT + batch + n) for n, pod in enumerate(order)}
                batch += len(order)
                if pair >= _WARM_UP:
                    ratios.append(took[excluding.name] / took[without.name])
                    costs.append(took[without.name] / _CONNECTIONS / 1e3)
    return found


def _install(pod: LabPod, plan: RedirectPlan) -> None:
    pod.call(nft.apply, install_script(plan, (), replace=True))


def _listener(port: int) -> socket.socket:
    listener = socket.create_server(("0.0.0.0", port), backlog=_CONNECTIONS)
    listener.settimeout(None)
    return listener


def _batch(bed: _Bed, pod: LabPod, direction: str, port: int) -> int:
    """CPU ns of one batch."""
    if direction == "outbound":
        return pod.call(_connections, bed.listeners[pod.name, OUTBOUND_PORT], (_ELSEWHERE, port))
    return bed.caller.call(_connections, bed.listeners[pod.name, INBOUND_PORT], (str(pod.address4), port))


def _connections(listener: socket.socket, address: tuple[str, int]) -> int:
    began = time.thread_time_ns()
    for _ in range(_CONNECTIONS):
        client = socket.SocketType(_INET, _STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.connect(address)
        accepted, _ = listener._accept()  # type: ignore[attr-defined]
        client.close()
        socket.close(accepted)
    return time.thread_time_ns() - began
