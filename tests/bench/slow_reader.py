"""A server that sends 1 GiB as fast as it is taken, and a client that hardly reads: what the proxy has to hold.

Counted: how far the worker's resident memory grows, and what the kernel holds for the proxy's two sockets of the
connection (memory of both queues, ss -m: r and w; and their bytes).
"""

import re
import socket
import time
from collections.abc import Callable
from typing import Final

from agent.lab.errors import LabError
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from proxy.api.constants import OUTBOUND_PORT
from tests.bench import bulk, meter, testbed
from tests.bench.results import Fact

BYTES: Final = 1 << 30
_SLOW_S: Final = 5.0
_PACE_S: Final = 0.05
_READ: Final = 16 * 1024
"""Each 50 ms: 320 KiB/s, a slow mobile connection; the kernel's buffers grow with what is read (tcp_rmem)."""
_BOUND_MB: Final = 4.0
_OFF: Final = (("headgate.io/mesh", "disabled"),)

Say = Callable[[str], None]


def measure(say: Say) -> tuple[Fact, ...]:
    """Raises LabError."""
    pods = (PodSpec("client"), PodSpec("server", labels=_OFF))
    with Lab(LabSpec(pods, (bulk.OBJECTS,))) as lab, bulk.server(lab.pod("server")):
        proxy = lab.start_proxy(*testbed.ONE_WORKER)
        lab.start_agent()
        lab.wait_ready()
        lab.wait_proved()
        worker = meter.family(proxy.pid)[1]
        before_mb = meter.memory_mb(worker)
        meter.forget_peak(worker)
        say("a slow reader behind a fast sender")
        with lab.pod("client").netns.connect(bulk.HOST, bulk.PORT, timeout_s=bulk.TIMEOUT_S) as connection:
            connection.sendall(f"GET /{BYTES} HTTP/1.1\r\nHost: bulk\r\n\r\n".encode())
            most_kernel, most_bytes = _read_slowly(lab.pod("client"), connection)
            grown_mb = max(0.0, meter.memory_mb(worker, "VmHWM") - before_mb)
    return (
        Fact("slow_reader_mb", "slow reader behind a fast 1 GiB sender, held in all", grown_mb + most_kernel / 1e6,
             "MB", _BOUND_MB),
        Fact("slow_reader_worker_mb", "of these, the worker's memory", grown_mb, "MB"),
        Fact("slow_reader_kernel_mb", "of these, the kernel's for its two sockets", most_kernel / 1e6, "MB"),
        Fact("slow_reader_queued_mb", "bytes of the body in these two", most_bytes / 1e6, "MB"),
    )  # fmt: skip


def _read_slowly(pod: LabPod, connection: socket.socket) -> tuple[int, int]:
    """The most that the kernel held at one time: memory, and bytes of the body."""
    most_kernel = most_bytes = 0
    until = time.monotonic() + _SLOW_S
    while time.monotonic() < until:
        if not connection.recv(_READ):
            raise LabError("the slow reader's connection ended early")
        kernel, queued = _held(pod)
        most_kernel, most_bytes = max(most_kernel, kernel), max(most_bytes, queued)
        time.sleep(_PACE_S)
    if most_bytes == 0:
        raise LabError("ss shows none of the proxy's sockets in the client's pod: nothing was measured")
    return most_kernel, most_bytes


def _held(pod: LabPod) -> tuple[int, int]:
    """Of the proxy's sockets in the pod: those at its own port, and those to the server's."""
    lines = pod.run(["ss", "-tmnHO", "state", "established"]).stdout.splitlines()
    kernel = queued = 0
    for line in lines:
        received, to_send, local, peer, *_ = line.split()
        if local.endswith(f":{OUTBOUND_PORT}") or peer.endswith(f":{bulk.TARGET_PORT}"):
            queued += int(received) + int(to_send)
            memory = re.search(r"skmem:\(r(\d+),.*?,w(\d+),", line)
            kernel += sum(int(number) for number in memory.groups()) if memory else 0
    return kernel, queued
