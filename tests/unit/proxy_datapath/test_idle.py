"""DESIGN 6, pools: how many idle connections are kept, an upstream's and a pod's."""

import socket
from contextlib import ExitStack

from proxy.datapath.labels import PASSTHROUGH
from proxy.datapath.pod import Pod
from proxy.datapath.stream import Stream
from proxy.datapath.upstream import MAX_IDLE_A_POD, MAX_IDLE_INBOUND, Upstream
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.workload import NOBODY
from tests.unit.proxy_datapath.doubles import Remembering, served_pod


def upstream_of(pod: Pod, direction: Direction, port: int = 80) -> Upstream:
    return Upstream(pod, direction, SocketAddress("10.77.0.9", port), PASSTHROUGH, NOBODY, NOBODY)


def give_back(stack: ExitStack, upstream: Upstream, number: int) -> None:
    for _ in range(number):
        ours, theirs = socket.socketpair()
        stack.callback(theirs.close)
        stream = Stream(upstream.pod.node.reactor, ours, Remembering())
        stream.start()
        upstream.give_back(stream, now_s=1.0)


def test_an_inbound_upstream_keeps_four_and_one_for_each_open_client() -> None:
    with served_pod() as pod, ExitStack() as stack:
        upstream = upstream_of(pod, Direction.INBOUND)
        stack.callback(upstream.retire)
        give_back(stack, upstream, 10)
        assert len(upstream.idle) == MAX_IDLE_INBOUND
        upstream.callers = 3
        give_back(stack, upstream, 10)
        assert len(upstream.idle) == MAX_IDLE_INBOUND + 3


def test_a_pods_upstreams_keep_256_together_whatever_becomes_of_each() -> None:
    with served_pod() as pod, ExitStack() as stack:
        one, other = upstream_of(pod, Direction.OUTBOUND), upstream_of(pod, Direction.OUTBOUND, 81)
        stack.callback(one.retire)
        stack.callback(other.retire)
        give_back(stack, one, 200)
        give_back(stack, other, 200)
        assert (len(one.idle), len(other.idle)) == (200, MAX_IDLE_A_POD - 200)
        one.take(Remembering()).close()
        one.on_data(one.idle[0], b"")
        assert pod.idle_connections == MAX_IDLE_A_POD - 2
        other.expire(now_s=100.0)
        assert pod.idle_connections == 198
        one.retire()
        assert pod.idle_connections == 0
