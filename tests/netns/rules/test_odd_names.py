"""Tables and chains whose names are no UTF-8: netlink takes them, and a pod may make them to hide what it has."""

import json
import socket
import struct
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.kernel.netlink import Message, attribute, encode, nested
from agent.tracing.filter import Filter
from agent.tracing.watch import trace_while
from tests.netns.kernel.scratch import NODE4, Scratch, pod_and_node

_NFNETLINK, _BATCH_BEGIN, _BATCH_END = 12, 16, 17  # linux/netfilter/nfnetlink.h
_NFT, _NEWTABLE, _NEWCHAIN = 10, 0, 3  # linux/netfilter/nf_tables.h
_CREATE_ACK = 0x404
_OUTPUT, _DROP, _ACCEPT = 3, 0, 1
_IP = struct.pack("=BBH", 2, 0, 0)
_FOR_NFT = struct.pack(">BBH", 0, 0, _NFT)


def _chains(made: tuple[tuple[bytes, int], ...]) -> None:
    """A table of each name, with an empty chain of that name and policy at the output hook."""
    messages = [Message(_BATCH_BEGIN, 0, _FOR_NFT)]
    for name, policy in made:
        hook = nested(4, attribute(1, struct.pack(">I", _OUTPUT)), attribute(2, struct.pack(">i", 0)))
        chain = attribute(1, name) + attribute(3, name) + hook
        chain += attribute(5, struct.pack(">I", policy)) + attribute(7, b"filter\0")
        messages.append(Message(_NFT << 8 | _NEWTABLE, _CREATE_ACK, _IP + attribute(1, name)))
        messages.append(Message(_NFT << 8 | _NEWCHAIN, _CREATE_ACK, _IP + chain))
    messages.append(Message(_BATCH_END, 0, _FOR_NFT))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NFNETLINK) as netlink:
        netlink.settimeout(5)
        netlink.send(b"".join(encode(message, number) for number, message in enumerate(messages, 1)))
        for _ in range(2 * len(made)):
            assert struct.unpack_from("=i", netlink.recv(1 << 16), 16) == (0,)


@pytest.fixture
def pod() -> Iterator[Scratch]:
    """One table drops all, another none; decoded carelessly, their names are the same."""
    with pod_and_node() as (pod, _):
        pod.run(_chains, ((b"t\xff\0", _DROP), (b"t\xfe\0", _ACCEPT)))
        yield pod


def _asked(pod: Scratch, *words: str) -> str:
    done = CliRunner().invoke(main, ["rules", *words, "--netns", pod.path, "-o", "json"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_both_are_shown_each_with_its_policy(pod: Scratch) -> None:
    tables = json.loads(_asked(pod, "show"))["tables"]
    policies = {(table["name"], chain["policy"]) for table in tables for chain in table["chains"]}
    assert policies == {(r"t\udcff", "drop"), (r"t\udcfe", "accept")}


def test_what_one_of_them_drops_is_explained_as_far_as_it_can_be_read(pod: Scratch) -> None:
    said = json.loads(_asked(pod, "explain", "--to", f"{NODE4}:80"))
    assert said["outcome"]["verdict"] == "unknown"
    assert {way["verdict"] for way in said["either"]} == {"drop", "accept"}
    assert all("name in no UTF-8" in one["why"] for one in said["unknown"] if one["place"] == 1)


def test_a_trace_names_the_one_that_drops(pod: Scratch) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(PermissionError):
            sock.sendto(b"x", (NODE4, 9))

    (packet,) = pod.run(trace_while, Filter(protocol=17), send).packets
    assert packet.dropped is not None and packet.dropped.table == "t\udcff"
