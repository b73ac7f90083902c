"""The agent's store refuses what is not a pod's listeners, and sends away who says what it must not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.handoff import fds
from agent.lab.namespaces import Netns
from proxy.api.fd_box import make_box
from proxy.api.stream import (
    BoxedListener,
    BoxFrame,
    Deposit,
    NoBox,
    Refused,
    Stored,
    StoreHello,
    Take,
)
from tests.netns.fd_store.pods import LISTENERS, Agent, Stranger, accepts, box_of, listeners_in

MakeNetns = Callable[[], Netns]


def test_a_pod_that_the_agent_does_not_know_is_refused_and_nothing_of_it_is_held(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        netns = make_netns()
        async with Agent(tmp_path / "fds.sock", known=set()) as agent:
            proxy = await Stranger(agent.path).greet()
            with listeners_in(netns) as listeners, box_of("uid-1", listeners) as box:
                answer = await proxy.ask(Deposit("uid-1", listeners.netns_cookie), box.fileno())
                assert answer == Refused("no such pod is known")
            assert not accepts(netns)
            proxy.close()

    asyncio.run(scenario())


def test_listeners_of_another_namespace_than_the_agent_saw_the_pod_in_are_not_kept(
    tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        first, second = make_netns(), make_netns()
        async with Agent(tmp_path / "fds.sock") as agent:
            proxy = await Stranger(agent.path).greet()
            with (
                listeners_in(first) as former,
                listeners_in(second) as present,
                box_of("uid-1", former) as old,
                box_of("uid-1", present) as new,
            ):
                assert await proxy.ask(Deposit("uid-1", former.netns_cookie), old.fileno()) == Stored()
                agent.store.expect("uid-1", present.netns_cookie)
                assert agent.store.uids == frozenset()
                answer = await proxy.ask(Deposit("uid-1", former.netns_cookie), old.fileno())
                assert answer == Refused("the pod has another network namespace by now")
                assert await proxy.ask(Deposit("uid-1", present.netns_cookie), new.fileno()) == Stored()
            proxy.close()

    asyncio.run(scenario())


Bad = Callable[[ExitStack, MakeNetns], tuple[int, socket.socket]]
"""Makes a box that is none, and the cookie that the deposit names."""


def _wrong_frame(**changes: object) -> Bad:
    def make(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
        listeners = stack.enter_context(listeners_in(make_netns()))
        frame = {"uid": "uid-1", "netns_cookie": listeners.netns_cookie, "listeners": LISTENERS} | changes
        return listeners.netns_cookie, box_of("uid-1", listeners, BoxFrame(**frame))  # type: ignore[arg-type]

    return make


def _of_another_namespace(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    one, other = (stack.enter_context(listeners_in(make_netns())) for _ in range(2))
    mixed = [*(sock.fileno() for sock in one.sockets[:3]), other.sockets[3].fileno()]
    return one.netns_cookie, make_box(BoxFrame("uid-1", one.netns_cookie, LISTENERS), mixed)


def _not_listening(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    netns = make_netns()
    listeners = stack.enter_context(listeners_in(netns))
    connected = stack.enter_context(netns.connect("127.0.0.1", 15001))
    frame = BoxFrame("uid-1", listeners.netns_cookie, LISTENERS[:1])
    return listeners.netns_cookie, make_box(frame, [connected.fileno()])


def _no_socket(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    listeners = stack.enter_context(listeners_in(make_netns()))
    file = os.open("/proc/self/ns/net", os.O_RDONLY)
    stack.callback(os.close, file)
    return listeners.netns_cookie, make_box(BoxFrame("uid-1", listeners.netns_cookie, LISTENERS[:1]), [file])


def _foreign_port(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    netns = make_netns()
    listeners = stack.enter_context(listeners_in(netns))
    foreign = stack.enter_context(netns.listen("127.0.0.1", 8080))
    frame = BoxFrame("uid-1", listeners.netns_cookie, (BoxedListener(8080, 4),))
    return listeners.netns_cookie, make_box(frame, [foreign.fileno()])


def _twice(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    listeners = stack.enter_context(listeners_in(make_netns()))
    frame = BoxFrame("uid-1", listeners.netns_cookie, (LISTENERS[0], LISTENERS[0]))
    return listeners.netns_cookie, make_box(frame, [listeners.sockets[0].fileno()] * 2)


def _empty(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    return 7, ours


def _garbage(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(b"\xff" * 100)
    theirs.close()
    return 7, ours


def _stream_pair(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    stack.enter_context(theirs)
    return 7, ours


def _a_listener_itself(stack: ExitStack, make_netns: MakeNetns) -> tuple[int, socket.socket]:
    listeners = stack.enter_context(listeners_in(make_netns()))
    return listeners.netns_cookie, listeners.sockets[0].dup()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (_wrong_frame(uid="uid-2"), "its frame names another pod"),
        (_wrong_frame(netns_cookie=1), "its frame names another pod"),
        (_wrong_frame(listeners=LISTENERS[:3]), "4 descriptors, 3 in its frame"),
        (_wrong_frame(listeners=LISTENERS[::-1]), "its frame names other ports or families"),
        (_of_another_namespace, "of another network namespace"),
        (_not_listening, "does not listen"),
        (_no_socket, "no socket"),
        (_foreign_port, "listens on port 8080"),
        (_twice, "two listeners of one port and family"),
        (_empty, "it is empty"),
        (_garbage, "its frame: no JSON"),
        (_stream_pair, "no SEQPACKET socket"),
        (_a_listener_itself, "no SEQPACKET socket"),
    ],
)
def test_what_is_not_a_pods_listeners_is_refused_with_the_reason(
    bad: Bad, why: str, tmp_path: Path, make_netns: MakeNetns
) -> None:
    async def scenario() -> None:
        with ExitStack() as stack:
            before = sum(1 for _ in Path("/proc/self/fd").iterdir())
            async with Agent(tmp_path / "fds.sock") as agent:
                proxy = await Stranger(agent.path).greet()
                cookie, box = bad(stack, make_netns)
                with box:
                    answer = await proxy.ask(Deposit("uid-1", cookie), box.fileno())
                assert isinstance(answer, Refused)
                assert why in answer.reason
                assert agent.store.uids == frozenset()
                assert await proxy.ask(StoreHello()) == StoreHello(), "a refusal is no reason to send it away"
                proxy.close()
            stack.close()
            assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= before

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "packet",
    [b"", b"\xff", b"{}", b'{"type":"take"}', b'{"type":"stored"}', b'{"type":"none"}', b"[" * 8000, b"x" * 9000],
)
def test_a_peer_that_says_what_it_must_not_is_sent_away_and_others_stay(packet: bytes, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Agent(tmp_path / "fds.sock") as agent:
            proxy, stranger = await Stranger(agent.path).greet(), await Stranger(agent.path).greet()
            assert await stranger.ask(packet) is None
            assert await proxy.ask(Take("uid-1")) == NoBox()
            proxy.close()
            stranger.close()

    asyncio.run(scenario())


def test_without_a_hello_and_with_a_wrong_number_of_descriptors_a_peer_is_sent_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Agent(tmp_path / "fds.sock") as agent:
            for message, descriptors in (
                (Take("uid-1"), ()),
                (StoreHello(), (0,)),
            ):
                stranger = Stranger(agent.path)
                assert await stranger.ask(message, *descriptors) is None
                stranger.close()
            for descriptors in ((), (0, 0), (0,) * 9):
                stranger = await Stranger(agent.path).greet()
                assert await stranger.ask(Deposit("uid-1", 7), *descriptors) is None
                stranger.close()

    asyncio.run(scenario())


def test_a_process_of_another_user_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fds, "peer_is_trusted", lambda sock: False)

    async def scenario() -> None:
        async with Agent(tmp_path / "fds.sock") as agent:
            assert agent.path.stat().st_mode & 0o777 == 0o600
            stranger = Stranger(agent.path)
            assert await stranger.ask(StoreHello()) is None
            stranger.close()

    asyncio.run(scenario())
