"""B40: the pod's conntrack table is full: the agent goes on and says why, new connections fail closed, old ones live.

nf_conntrack_max is the machine's, not to be touched, and read-only in every other namespace; but each namespace has
that many entries of its own (nf_conntrack_core.c: __nf_conntrack_alloc). So the table of one pod is really filled.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from agent.kernel import conntrack
from agent.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, attribute, encode, nested
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life.talk import Echo, Talk, address

_NEW = 1 << 8  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT = 1, 2, 3, 4, 7
_ASSURED = (1 << 1) | (1 << 2) | (1 << 3)
"""Replies seen, assured, confirmed: what is assured is not evicted to make room (nf_conntrack_core.c: early_drop)."""
_ESTABLISHED = 3
_HOUR_S = 3600
_AT_ONCE = 500
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_FIRST = int(IPv4Address("198.18.0.0"))  # RFC 2544: for such purposes, and nobody's here


def _entry(source: IPv4Address, port: int) -> bytes:
    there, here = IPv4Address("192.0.2.1"), 80
    tcp = nested(1, attribute(1, bytes([_ESTABLISHED])))
    return (
        struct.pack("=BBH", socket.AF_INET, 0, 0)
        + _tuple(_TUPLE_ORIG, source, port, there, here)
        + _tuple(_TUPLE_REPLY, there, here, source, port)
        + attribute(_STATUS, _ASSURED.to_bytes(4, "big"))
        + attribute(_TIMEOUT, _HOUR_S.to_bytes(4, "big"))
        + nested(_PROTOINFO, tcp)
    )


def _tuple(kind: int, source: IPv4Address, port: int, destination: IPv4Address, to: int) -> bytes:
    return nested(
        kind,
        nested(1, attribute(1, source.packed), attribute(2, destination.packed)),
        nested(2, attribute(1, b"\x06"), attribute(2, port.to_bytes(2, "big")), attribute(3, to.to_bytes(2, "big"))),
    )


def _fill() -> None:
    """Inside the namespace: until the kernel has no room. One message is the pattern of all: encoding a quarter of a
    million would take half a minute."""
    pattern = encode(Message(_NEW, NLM_F_CREATE | NLM_F_EXCL, _entry(IPv4Address(0xABCDEF01), 0x7A7B)), 1)
    places = [found.start() for found in re.finditer(re.escape(bytes.fromhex("abcdef01")), pattern)]
    ports = [found.start() for found in re.finditer(re.escape(bytes.fromhex("7a7b")), pattern)]
    assert len(places) == len(ports) == 2
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.setblocking(False)
        # Refusals of a whole batch must fit its queue.
        netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        for batch in _batches(bytearray(pattern), places, ports):
            netlink.send(batch)
            if _refused(netlink):
                return


def _batches(pattern: bytearray, places: list[int], ports: list[int]) -> Iterator[bytes]:
    for number in range(1 << 20):
        batch = bytearray()
        for step in range(_AT_ONCE):
            at = number * _AT_ONCE + step
            for place in places:
                pattern[place : place + 4] = (_FIRST + at // 60000).to_bytes(4, "big")
            for port in ports:
                pattern[port : port + 2] = (1024 + at % 60000).to_bytes(2, "big")
            batch += pattern
        yield bytes(batch)
    raise AssertionError("the table never became full")


def _refused(netlink: socket.socket) -> bool:
    """The kernel answers a message unasked only when it refuses it."""
    full = False
    try:
        while True:
            number = -int(struct.unpack_from("=i", netlink.recv(1 << 16), 16)[0])
            assert number == errno.ENOMEM, f"errno {number}"
            full = True
    except BlockingIOError:
        return full


def _make_room() -> None:
    conntrack.forget(
        conntrack.Tuple(IPv4Address(_FIRST), 1024 + number, IPv4Address("192.0.2.1"), 80) for number in range(500)
    )


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("client"), PodSpec("server", labels=(("headgate.io/mesh", "disabled"),))))) as made:
        made.start()
        yield made


def test_b40_full_conntrack_table_fails_new_connections_closed_and_says_why(lab: Lab) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, 4)
    with Echo(server) as echo, Talk(client, to) as steered:
        steered.says()
        assert steered.steered_to() == 15001
        client.call(_fill)
        table = client.call(conntrack.table)
        assert table.is_full and table.entries == table.limit
        callers = len(echo.callers)
        with pytest.raises(TimeoutError):
            client.netns.connect(to, 9000, timeout_s=0.5)
        assert len(echo.callers) == callers, "nothing went past the mesh"
        assert client.call(conntrack.table).dropped > table.dropped

        verified = lab.agent_get("/pods/default/client/verify", method="POST", timeout_s=20)
        assert verified["state"] == "installed" and verified["conntrack_full"] is True
        assert re.search(r"conntrack table of the pod's namespace is full \(\d+ of \d+ entries", lab.log("agent"))
        assert _metric(lab) == "1.0"
        (event,) = [e for e in lab.agent_get("/events")["items"] if e["reason"] == "ConntrackTableFull"]
        assert "raise net.netfilter.nf_conntrack_max" in event["message"]
        steered.says()  # who has an entry keeps it

        client.call(_make_room)
        lab.wait_proved("client")
        lab.agent_get("/pods/default/client/verify", method="POST", timeout_s=20)  # else within a minute
        assert _metric(lab) == "0.0"
        assert "has room again" in lab.log("agent")
        with Talk(client, to) as again:
            again.says()
            assert again.steered_to() == 15001


def _metric(lab: Lab) -> str:
    page = lab.node.run(["curl", "-sf", "http://127.0.0.1:15014/metrics"]).stdout
    found = re.search(r'^headgate_conntrack_full\{namespace="default",pod="client"\} (\S+)$', page, re.MULTILINE)
    return found[1] if found else ""
