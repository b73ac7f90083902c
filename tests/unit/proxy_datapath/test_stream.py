"""A TCP connection as its owner sees it: what is kept, what is told, and when."""

import errno
import select
import socket
from collections.abc import Iterator

import pytest

from proxy.datapath.reactor import BROKEN, READABLE, WRITABLE, Reactor
from proxy.datapath.stream import CONNECT_TIMEOUT_S, Stream
from proxy.model.address import SocketAddress
from tests.unit.proxy_datapath.doubles import Remembering, turn

SOMEWHERE = SocketAddress("192.0.2.1", 80)


class ConnectingSocket:
    """A socket whose connection attempt goes as it is told to; everything else is a real one's."""

    def __init__(self, outcome: int, error: int = 0) -> None:
        self._real = socket.socket()
        self._outcome = outcome
        self.error = error

    def connect_ex(self, address: SocketAddress) -> int:
        return self._outcome

    def getsockopt(self, level: int, option: int) -> int:
        return self.error

    def send(self, data: bytes, flags: int) -> int:
        raise BlockingIOError

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def pair(reactor: Reactor) -> Iterator[tuple[Stream, socket.socket, Remembering]]:
    """A stream, the peer's end, and the stream's owner."""
    ours, theirs = socket.socketpair()
    owner = Remembering()
    stream = Stream(reactor, ours, owner)
    stream.start()
    yield stream, theirs, owner
    stream.close()
    theirs.close()


Pair = tuple[Stream, socket.socket, Remembering]


def connecting(reactor: Reactor, sock: ConnectingSocket) -> tuple[Stream, Remembering]:
    owner = Remembering()
    stream = Stream(reactor, sock, owner)  # type: ignore[arg-type]
    stream.connect(SOMEWHERE)
    return stream, owner


# ── Connecting ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_connected_is_told_in_a_later_turn(reactor: Reactor) -> None:
    stream, owner = connecting(reactor, ConnectingSocket(errno.ENETUNREACH))
    stream.send(b"kept until then")
    assert owner.told == []
    turn(reactor)
    assert owner.told == [("connect failed", "ENETUNREACH")]
    assert stream.outgoing == b"kept until then"


def test_an_owner_that_has_left_is_not_told(reactor: Reactor) -> None:
    stream, owner = connecting(reactor, ConnectingSocket(errno.ENETUNREACH))
    stream.close()
    turn(reactor)
    assert owner.told == []


def test_another_connections_late_event_does_not_pass_for_being_connected(reactor: Reactor) -> None:
    """Descriptors are reused within a turn: an event may still be of the one that had the number before."""
    stream, owner = connecting(reactor, ConnectingSocket(errno.EINPROGRESS))
    stream.on_event(READABLE)
    stream.on_event(BROKEN)
    assert stream.connecting and owner.told == []
    stream.on_event(WRITABLE)
    assert not stream.connecting and owner.told == [("connected", None)]
    stream.close()


def test_a_failure_is_told_with_its_name(reactor: Reactor) -> None:
    sock = ConnectingSocket(errno.EINPROGRESS)
    stream, owner = connecting(reactor, sock)
    stream.send(b"unsent")
    sock.error = errno.ECONNREFUSED
    stream.on_event(WRITABLE | BROKEN)
    assert owner.told == [("connect failed", "ECONNREFUSED")]
    assert stream.outgoing == b"unsent"


def test_connecting_is_given_up_after_its_time(reactor: Reactor) -> None:
    stream, owner = connecting(reactor, ConnectingSocket(errno.EINPROGRESS))
    stream.expire(stream.since_s + CONNECT_TIMEOUT_S)
    assert owner.told == []
    stream.expire(stream.since_s + CONNECT_TIMEOUT_S + 1)
    assert owner.told == [("connect failed", "ETIMEDOUT")]


def test_bytes_that_were_taken_end_the_connecting(reactor: Reactor) -> None:
    """From then on a reset is a reset: the request may have been seen, and is not sent again."""
    listener = socket.create_server(("127.0.0.1", 0))
    owner = Remembering()
    stream = Stream(reactor, socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK), owner)
    with listener:
        stream.connect(SocketAddress(*listener.getsockname()))
        stream.send(b"request")
        accepted, _ = listener.accept()
        assert not stream.connecting and owner.told == [("connected", None)]
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        accepted.close()
    turn(reactor)
    assert owner.told[:2] == [("connected", None), ("data", b"")]
    assert stream.failed
    stream.close()


# ── Sending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_does_not_fit_is_kept_in_order_and_its_leaving_told_once(pair: Pair, reactor: Reactor) -> None:
    stream, peer, owner = pair
    data = bytes(range(256)) * 16384
    stream.send(data)
    assert 0 < len(stream.outgoing) < len(data)
    stream.send(b"more")
    assert stream.outgoing.endswith(b"more")
    received = b""
    peer.settimeout(5)
    while len(received) < len(data) + 4:
        received += peer.recv(1 << 20)
        turn(reactor)
    assert received == data + b"more"
    assert owner.told == [("drained", None)]


def test_a_peer_that_is_gone_is_told_by_the_read_side_after_its_last_words(pair: Pair, reactor: Reactor) -> None:
    stream, peer, owner = pair
    peer.sendall(b"last words")
    peer.close()
    stream.send(b"too late")
    assert owner.told == []
    turn(reactor)
    assert owner.told[:2] == [("data", b"last words"), ("data", b"")]
    assert stream.failed


# ── Pausing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_paused_stream_reads_nothing_until_it_is_resumed(pair: Pair, reactor: Reactor) -> None:
    stream, peer, owner = pair
    stream.pause()
    peer.sendall(b"wait")
    turn(reactor)
    assert owner.told == []
    stream.resume()
    turn(reactor)
    assert owner.told == [("data", b"wait")]


def test_both_ends_closed_while_paused_keep_what_is_unread_and_do_not_turn_the_loop(
    pair: Pair, reactor: Reactor
) -> None:
    stream, peer, owner = pair
    seen: list[int] = []
    stream.pause()
    peer.sendall(b"unread")
    peer.shutdown(socket.SHUT_WR)
    stream.end()

    def counting(events: int) -> None:
        seen.append(events)
        stream.on_event(events)

    reactor.rewire(stream.fd, counting)
    turn(reactor)
    assert owner.told == []
    assert 1 <= len(seen) <= 3
    assert seen[0] & select.EPOLLHUP
    stream.resume()
    turn(reactor)
    assert owner.told[:2] == [("data", b"unread"), ("data", b"")]
    assert not stream.failed


def test_a_reset_while_paused_is_told_at_once(reactor: Reactor) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    listener.close()
    owner = Remembering()
    stream = Stream(reactor, accepted, owner)
    stream.start()
    stream.pause()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()
    reactor.call_later(0.01, stream.close)
    turn(reactor)
    assert ("data", b"") in owner.told
    assert stream.failed


# ── Closing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_closing_twice_is_harmless_and_a_reset_reaches_the_peer(reactor: Reactor) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname(), 5)
    accepted, _ = listener.accept()
    listener.close()
    stream = Stream(reactor, accepted, Remembering())
    stream.start()
    stream.close(reset=True)
    stream.close()
    with peer, pytest.raises(ConnectionResetError):
        peer.recv(1)
