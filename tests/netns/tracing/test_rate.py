"""A trace under load: 1,000 new connections a second lose nothing, and what a slow reader misses is counted."""

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from agent.tracing.filter import Filter, parse_ends
from agent.tracing.traced import TracedPacket
from agent.tracing.watch import Watch, run
from tests.netns.kernel.scratch import NODE4
from tests.netns.rules.here import IPTABLES_NFT, Here, pod

A_SECOND, SECONDS = 1000, 2
LOAD = f"""
import socket, struct, threading, time
listener = socket.create_server(("127.0.0.1", 15001), backlog=4096)
def accept():
    while True:
        listener.accept()[0].close()
threading.Thread(target=accept, daemon=True).start()
began, sent = time.monotonic(), 0
while sent < {A_SECOND * SECONDS}:
    for _ in range(int((time.monotonic() - began) * {A_SECOND}) - sent):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.connect(("{NODE4}", 80))
        client.close()
        sent += 1
    time.sleep(0.002)
print(sent, time.monotonic() - began)
"""


@pytest.fixture
def here() -> Iterator[Here]:
    with pod() as made:
        made.install(IPTABLES_NFT)
        yield made


def test_a_thousand_new_connections_a_second_lose_nothing(here: Here) -> None:
    packets: list[TracedPacket] = []
    with here.pod.run(Watch, Filter(parse_ends("--to", f"{NODE4}:80"))) as watch:
        load = here.pod.run(subprocess.Popen, [sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True)
        try:
            run(watch, packets.append, time.monotonic() + 60, stopped=lambda: load.poll() is not None)
            sent, seconds = load.communicate()[0].split()
        finally:
            load.kill()
            load.wait()
        loss = watch.loss()
    assert float(seconds) < 3 * SECONDS, "the load kept its rate"
    assert len(packets) == int(sent) >= A_SECOND * SECONDS
    assert loss.nothing and loss.begun == len(packets)
    steps = {len(packet.steps) for packet in packets}
    assert len(steps) == 1, "each packet went the same way, and no step of it is missing"
    assert all(packet.connection is not None for packet in packets)


def test_what_a_slow_reader_misses_is_counted_to_the_packet(here: Here) -> None:
    with here.pod.run(Watch, Filter(parse_ends("--to", f"{NODE4}:80")), 5000, 64 << 10) as watch:
        here.pod.run(_send, 400)
        watch.read_all()
        packets = list(watch.done(quiet_s=0.0))
        loss = watch.loss()
    assert loss.begun == 400
    assert 0 < loss.packets < 400 and loss.messages > loss.packets
    assert loss.packets + len(packets) == loss.begun


def _send(count: int) -> None:
    for _ in range(count):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.setblocking(False)
            sock.connect_ex((NODE4, 80))
