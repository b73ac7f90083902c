"""proxy.link: what one end sends is what the other receives, whatever the sizes, and no descriptor is ever lost."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.link import FRAME_BYTES, MAX_DESCRIPTORS, Link, LinkClosed, link_pair
from proxy.workerlink import ForgetPod, PodServed, PolicySlice, Stop


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    supervisor, theirs = link_pair()
    worker = Link(theirs)
    yield supervisor, worker
    supervisor.close()
    worker.close()


@pytest.fixture
def raw() -> Iterator[tuple[Link, socket.socket]]:
    """A link and a bare socket opposite, to say what no link would."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    yield link, theirs
    link.close()
    theirs.close()


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def policy_of(size: int) -> PolicySlice:
    return PolicySlice(b"x" * size)


def pump(sender: Link, receiver: Link) -> list[object]:
    """Alternate both ends until everything sent has arrived."""
    arrived: list[object] = [message for message, _ in receiver.receive()]
    while sender.wants_write:
        sender.flush()
        arrived += [message for message, _ in receiver.receive()]
    return arrived


def test_messages_arrive_in_order_both_ways(ends: tuple[Link, Link]) -> None:
    supervisor, worker = ends
    supervisor.send(ForgetPod("a", 1.5))
    supervisor.send(Stop(25.0))
    worker.send(PodServed("b"))
    assert worker.receive() == [(ForgetPod("a", 1.5), ()), (Stop(25.0), ())]
    assert supervisor.receive() == [(PodServed("b"), ())]


def test_nothing_waiting_is_no_message(ends: tuple[Link, Link]) -> None:
    assert ends[1].receive() == []


@pytest.mark.parametrize("size", [FRAME_BYTES - 300, FRAME_BYTES, 3 * FRAME_BYTES, 40 * FRAME_BYTES])
def test_a_message_larger_than_a_packet_is_cut_and_joined(ends: tuple[Link, Link], size: int) -> None:
    supervisor, worker = ends
    supervisor.send(policy_of(size))
    supervisor.send(Stop(0.0))
    assert pump(supervisor, worker) == [policy_of(size), Stop(0.0)]


def test_a_full_socket_queues_and_keeps_order(ends: tuple[Link, Link]) -> None:
    supervisor, worker = ends
    sent = 0
    while not supervisor.wants_write:
        supervisor.send(ForgetPod(str(sent), 0.0))
        sent += 1
    supervisor.send(ForgetPod(str(sent), 0.0))
    assert pump(supervisor, worker) == [ForgetPod(str(index), 0.0) for index in range(sent + 1)]


def test_descriptors_arrive_open_and_close_on_exec(ends: tuple[Link, Link], tmp_path: Path) -> None:
    supervisor, worker = ends
    (tmp_path / "file").write_text("content")
    sent = os.open(tmp_path / "file", os.O_RDONLY)
    supervisor.send(policy_of(3 * FRAME_BYTES), (sent,))
    os.close(sent)
    received: list[int] = []
    while not received:
        supervisor.flush()
        received = [fd for _, fds in worker.receive() for fd in fds]
    assert not os.get_inheritable(received[0])
    assert os.read(received[0], 100) == b"content"
    os.close(received[0])


def test_queued_descriptors_survive_the_senders_close(ends: tuple[Link, Link], tmp_path: Path) -> None:
    supervisor, worker = ends
    (tmp_path / "file").write_text("late")
    while not supervisor.wants_write:
        supervisor.send(policy_of(FRAME_BYTES))
    sent = os.open(tmp_path / "file", os.O_RDONLY)
    supervisor.send(Stop(1.0), (sent,))
    os.close(sent)
    arrived: dict[str, tuple[int, ...]] = {}
    while "Stop" not in arrived:
        supervisor.flush()
        arrived |= {type(message).__name__: fds for message, fds in worker.receive()}
    assert os.read(arrived["Stop"][0], 100) == b"late"
    os.close(arrived["Stop"][0])


def test_too_many_descriptors_are_refused_before_anything_is_sent(ends: tuple[Link, Link]) -> None:
    with pytest.raises(ValueError, match="254 descriptors"):
        ends[0].send(Stop(0.0), [0] * (MAX_DESCRIPTORS + 1))
    assert ends[1].receive() == []


def test_closing_delivers_what_was_sent_and_then_says_so(ends: tuple[Link, Link]) -> None:
    supervisor, worker = ends
    worker.send(PodServed("last words"))
    worker.close()
    assert supervisor.receive() == [(PodServed("last words"), ())]
    with pytest.raises(LinkClosed):
        supervisor.receive()
    with pytest.raises(LinkClosed):
        supervisor.send(Stop(0.0))


def test_close_closes_queued_and_half_received_descriptors() -> None:
    before = open_descriptors()
    supervisor, theirs = link_pair()
    worker = Link(theirs)
    while not supervisor.wants_write:
        supervisor.send(policy_of(30 * FRAME_BYTES), (0, 1, 2))
    worker.receive()  # the first frames with three descriptors, the message not complete
    assert open_descriptors() > before + 2
    worker.close()
    supervisor.close()
    assert open_descriptors() == before


def test_a_packet_that_is_no_message_closes_the_link_and_its_descriptors(raw: tuple[Link, socket.socket]) -> None:
    link, other = raw
    before = open_descriptors()
    socket.send_fds(other, [b".no pickle"], [0, 1])
    with pytest.raises(LinkClosed, match="same version"):
        link.receive()
    assert open_descriptors() == before


def test_a_cut_packet_closes_the_link_and_its_descriptors(raw: tuple[Link, socket.socket]) -> None:
    link, other = raw
    before = open_descriptors()
    socket.send_fds(other, [b"+" + b"x" * (FRAME_BYTES + 1)], [0])
    with pytest.raises(LinkClosed, match="cut off"):
        link.receive()
    assert open_descriptors() == before


def test_descriptors_in_the_middle_of_a_message_close_the_link(raw: tuple[Link, socket.socket]) -> None:
    link, other = raw
    before = open_descriptors()
    socket.send_fds(other, [b"+first"], [0])
    socket.send_fds(other, [b".second"], [1])
    with pytest.raises(LinkClosed):
        link.receive()
    assert open_descriptors() == before
