"""A proxy with three workers, and its pods when one dies, stands still, or is joined by others."""

import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.lab.node import Lab
from proxy.api.constants import OUTBOUND_PORT
from tests.netns.proxy.wire import Wire, get
from tests.netns.workers.conftest import VIRTUAL, WORKERS, Workers

_OWNER = re.compile(r"pid=(\d+)")
QUEUED = 20
OPAQUE_PORT = 5432
"""One of the default opaque ports: relayed, so that only a cut ends it."""


@pytest.fixture
def workers(three_workers: Workers) -> Iterator[Workers]:
    yield three_workers
    three_workers.annotate("client", None)
    three_workers.lab.wait("all pods at home", lambda: not three_workers.home_sick())


@pytest.fixture
def connect(workers: Workers) -> Iterator[Callable[[], Wire]]:
    """A connection of pod `client` to the Service, through its proxy."""
    with ExitStack() as opened:

        def one() -> Wire:
            wire = Wire(workers.lab.pod("client").netns.connect(*VIRTUAL, timeout_s=20.0))
            wire.sock.settimeout(20.0)
            opened.callback(wire.close)
            return wire

        yield one


def served(wire: Wire) -> bool:
    wire.send(get())
    status, head, _ = wire.answer()
    return status == 200 and b"\r\nConnection: close\r\n" not in head


def home_of_client(workers: Workers) -> int:
    (home,) = workers.of("client")
    return home


def test_a_killed_worker_s_pod_is_served_by_another_and_goes_home_without_a_cut(
    workers: Workers, connect: Callable[[], Wire]
) -> None:
    home = home_of_client(workers)
    victim = workers.send(home, signal.SIGKILL)
    meanwhile = connect()
    assert served(meanwhile)
    workers.replaced(home, victim)
    assert served(meanwhile), "whoever served meanwhile keeps what it has accepted"
    assert served(connect())
    assert workers.metric('headgate_worker_restarts_total{reason="died"}') >= 1


def test_connections_that_end_with_a_killed_worker_are_counted_to_the_last_one(
    workers: Workers, connect: Callable[[], Wire]
) -> None:
    cut = 'headgate_connections_cut_total{namespace="default",pod="client",reason="worker_ended"}'
    home = home_of_client(workers)
    workers.lab.wait("what other tests left behind to end", lambda: owned(workers)[home] == 0)
    before = workers.metric(cut)
    living = [connect() for _ in range(7)]
    assert all(served(wire) for wire in living)
    for _ in range(5):
        gone = connect()
        assert served(gone)
        gone.close()
    workers.lab.wait("those to end", lambda: owned(workers)[home] == len(living))
    victim = workers.send(home, signal.SIGKILL)
    assert all(ended(wire) for wire in living)
    workers.replaced(home, victim)
    assert workers.metric(cut) == before + len(living)
    assert f"pod default/client: {len(living)} connections cut by the end of worker {home}" in workers.lab.log("proxy")


def test_what_waits_in_the_queue_of_a_killed_worker_is_served_by_another(
    workers: Workers, connect: Callable[[], Wire]
) -> None:
    """The queue is the listener's, which the supervisor holds: 0 of them are reset."""
    home = home_of_client(workers)
    victim = workers.send(home, signal.SIGSTOP)
    queued = [connect() for _ in range(QUEUED)]
    for wire in queued:
        wire.send(get())
    workers.send(home, signal.SIGKILL)
    assert [wire.answer()[0] for wire in queued] == [200] * QUEUED
    workers.replaced(home, victim)


def test_a_stopped_worker_is_noticed_and_replaced_and_nothing_that_was_queued_is_lost(
    workers: Workers, connect: Callable[[], Wire]
) -> None:
    before = workers.metric('headgate_worker_restarts_total{reason="stopped"}')
    home = home_of_client(workers)
    victim = workers.send(home, signal.SIGSTOP)
    queued = [connect() for _ in range(QUEUED)]
    for wire in queued:
        wire.send(get())
    assert [wire.answer()[0] for wire in queued] == [200] * QUEUED
    workers.replaced(home, victim)
    assert workers.metric('headgate_worker_restarts_total{reason="stopped"}') == before + 1
    assert f"worker {home} is stopped: killed, its pods move on" in workers.lab.log("proxy")


def test_a_worker_that_stops_for_a_moment_is_left_alone(workers: Workers, connect: Callable[[], Wire]) -> None:
    """As under a profiler or a debugger that attaches."""
    home = home_of_client(workers)
    kept = connect()
    assert served(kept)
    pid = workers.send(home, signal.SIGSTOP)
    kept.send(get())
    workers.send(home, signal.SIGCONT)
    assert kept.answer()[0] == 200
    assert workers.pid(home) == pid


def test_counters_never_fall_when_workers_die(workers: Workers, connect: Callable[[], Wire]) -> None:
    name = 'istio_requests_total{reporter="source"'
    seen = [workers.metric(name)]
    for _ in range(3):
        wire = connect()
        for _ in range(5):
            assert served(wire)
        seen.append(workers.metric(name))
        assert seen[-1] >= seen[-2] + 5, "a scrape brings in what was counted before it"
        home = home_of_client(workers)
        victim = workers.send(home, signal.SIGKILL)
        seen.append(workers.metric(name))
        workers.replaced(home, victim)
        seen.append(workers.metric(name))
    assert seen == sorted(seen)


def accepted_by(workers: Workers, connect: Callable[[], Wire], connections: int) -> Counter[int]:
    """How many of so many new connections each worker took, by who owns their sockets in the pod."""
    before = owned(workers)
    opened = [connect() for _ in range(connections)]
    assert all(served(wire) for wire in opened)
    return owned(workers) - before


def owned(workers: Workers) -> Counter[int]:
    """Connections that the pod's outbound listeners have accepted and that live, by worker."""
    listed = workers.lab.pod("client").run(["ss", "-Htnp", "state", "established", "sport", "=", f":{OUTBOUND_PORT}"])
    places = {workers.pid(index): index for index in range(WORKERS)}
    return Counter(places[int(pid)] for pid in _OWNER.findall(listed.stdout))


def test_a_hot_pod_gets_workers_and_gives_them_back_without_a_cut(
    workers: Workers, connect: Callable[[], Wire]
) -> None:
    lab, home = workers.lab, home_of_client(workers)
    first = connect()
    assert served(first)
    workers.annotate("client", "2")
    lab.wait("two workers", lambda: len(workers.of("client")) == 2)
    both = workers.of("client")
    assert home in both, "the more keeps what it had"
    assert served(first)
    hot = [connect() for _ in range(20)]
    assert all(served(wire) for wire in hot)
    workers.annotate("client", None)
    lab.wait("its home alone", lambda: workers.of("client") == [home])
    assert all(served(wire) for wire in [first, *hot]), "the other keeps what it has accepted"
    other = next(index for index in both if index != home)
    assert other not in accepted_by(workers, connect, 20)


def test_both_workers_of_a_hot_pod_accept_in_turns(workers: Workers, connect: Callable[[], Wire]) -> None:
    workers.annotate("client", "2")
    workers.lab.wait("two workers", lambda: len(workers.of("client")) == 2)
    before = owned(workers)
    for _ in range(40):
        assert served(connect())
    gained = owned(workers) - before
    assert gained.total() == 40
    assert set(gained) == set(workers.of("client"))
    assert min(gained.values()) >= 15, "in turns, also when one comes after the other"


def test_a_bad_number_of_workers_is_rejected_by_name_and_the_pod_stays_with_one(workers: Workers) -> None:
    workers.annotate("client", "many")

    def rejections() -> list[str]:
        return [one["text"] for one in workers.lab.proxy_get("/policy")["rejections"]]

    workers.lab.wait("the rejection", lambda: bool(rejections()))
    (text,) = rejections()
    assert "headgate.io/workers" in text and '"many"' in text
    assert len(workers.of("client")) == 1


def test_a_pod_that_leaves_is_let_go_by_every_worker_that_held_a_connection_of_it() -> None:
    """Hot, then not: one worker serves it, another keeps connections. Both drain it, and then its namespace is free."""
    with Lab() as lab, ExitStack() as opened:
        lab.start_proxy("--workers", "2", "--drain-s", "1")
        lab.start_agent("--drain-s", "1")
        lab.wait_ready()
        lab.wait_proved()
        workers = Workers(lab)
        workers.annotate("client", "2")
        lab.wait("two workers", lambda: len(workers.of("client")) == 2)
        wires = [Wire(lab.pod("client").netns.connect(*VIRTUAL)) for _ in range(40)]
        for wire in wires:
            opened.callback(wire.close)
            assert served(wire)
        workers.annotate("client", None)
        lab.wait("one worker", lambda: len(workers.of("client")) == 1)
        place = (str(lab.pod("web-v1").address4), OPAQUE_PORT)
        listener = opened.enter_context(lab.pod("web-v1").netns.listen(*place))
        relayed = Wire(lab.pod("client").netns.connect(*place))
        opened.callback(relayed.close)
        relayed.send(b"x")
        opened.enter_context(listener.accept()[0])
        lab.set_label("client", "headgate.io/mesh", "disabled")
        lab.wait("the pod to be left", lambda: "client" not in [one["name"] for one in lab.proxy_get("/pods")])
        assert all(ended(wire) for wire in (*wires, relayed))
        cut = 'headgate_connections_cut_total{namespace="default",pod="client",reason="drain_over"}'
        lab.wait("the cut to be counted", lambda: workers.metric(cut) == 1)
        lab.wait(
            "no netns held", lambda: not any(holds_netns(pid, lab.pod("client").netns_path) for pid in lab.workers())
        )


def ended(wire: Wire) -> bool:
    try:
        return wire.sock.recv(1) == b""
    except ConnectionResetError:
        return True


def holds_netns(pid: int, path: Path) -> bool:
    wanted = path.stat().st_ino
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if entry.stat().st_ino == wanted:
                return True
        except OSError:
            continue
    return False
