"""The worker's loop: timers in order, ticks, and handlers that come and go while it turns."""

import socket
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from proxy.datapath.reactor import WRITABLE, Reactor
from tests.unit.proxy_datapath.doubles import turn


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_timers_fire_in_the_order_of_their_time_and_of_their_making(reactor: Reactor) -> None:
    fired: list[str] = []
    reactor.call_later(0.010, lambda: fired.append("later"))
    for name in ("first", "second", "third"):
        reactor.call_later(0.0, partial(fired.append, name))
    turn(reactor)
    assert fired == ["first", "second", "third", "later"]


def test_a_descriptor_forgotten_within_a_turn_is_not_told_any_more(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    told: list[str] = []

    def handler(name: str, other: socket.socket) -> None:
        told.append(name)
        reactor.forget(other.fileno())

    one, other = pair
    reactor.watch(one.fileno(), lambda events: handler("one", other), WRITABLE)
    reactor.watch(other.fileno(), lambda events: handler("other", one), WRITABLE)
    turn(reactor)
    assert len(set(told)) == 1, "both were ready in one turn, and the first to be told forgot the other"


def test_forgetting_what_is_not_watched_is_harmless(reactor: Reactor) -> None:
    reactor.forget(10**6)


def test_ticks_come_about_every_tick_with_the_time(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.datapath.reactor.TICK_S", 0.02)
    ticks: list[float] = []
    reactor.on_tick(ticks.append)
    reactor.on_tick(lambda now_s: reactor.stop() if len(ticks) == 3 else None)
    reactor.run()
    assert all(later - earlier >= 0.02 for earlier, later in pairwise(ticks))
