"""How a load's requests come: kept or fresh connections, a rate of their own, and what is a loss and what is none."""

import socket
import threading
import time

import pytest

from agent.lab.errors import LabError
from agent.lab.load import Ends, Load, Shape, target
from tests.unit.lab.test_load import OK, server, well


@pytest.mark.parametrize("ends", [Ends.SERVER, Ends.CLIENT])
def test_a_connection_that_serves_one_request_is_ended_by_the_side_that_was_named(ends: Ends) -> None:
    connections = []

    def counting(connection: socket.socket, nth: int) -> bool:
        connections.append(nth)
        connection.sendall(OK)
        return ends is Ends.CLIENT  # then the client must end it: the server would wait for ever

    with server(counting) as url:
        made = Load([target(url)], connections=2, requests=10, seconds=20, shape=Shape(ends))
        found = made.run(lambda event: None)["all"]
    assert (found["ok"], found["failed"], found["connected"]) == (10, 0, 10)
    assert connections == [0] * 10
    assert found["connect_ns"]["p100"] > 0


def test_a_rate_goes_on_while_the_server_stands_still() -> None:
    """Nobody is answered before twenty have asked: a load of clients that wait for each other would stop at two."""
    asked = threading.Semaphore(0)
    go_on = threading.Event()

    def standing(connection: socket.socket, nth: int) -> bool:
        asked.release()
        assert go_on.wait(10)
        return well(connection, nth)

    def release() -> None:
        for _ in range(20):
            assert asked.acquire(timeout=10)
        go_on.set()

    with server(standing) as url:
        releasing = threading.Thread(target=release)
        releasing.start()
        made = Load([target(url)], connections=50, requests=25, seconds=20, shape=Shape(Ends.CLIENT, per_s=200))
        began = time.monotonic()
        found = made.run(lambda event: None)["all"]
        took_s = time.monotonic() - began
        releasing.join()
    assert (found["ok"], found["failed"]) == (25, 0)
    assert took_s >= 24 / 200


def test_a_connection_ended_between_two_requests_is_opened_anew_and_nothing_is_lost() -> None:
    def once(connection: socket.socket, nth: int) -> bool:
        connection.sendall(OK)
        return False  # closed without a word, as after an idle time-out

    with server(once) as url:
        made = Load([target(url)], connections=2, requests=8, seconds=20, shape=Shape(per_s=20))
        found = made.run(lambda event: None)["all"]
    assert (found["ok"], found["failed"]) == (8, 0)
    assert found["connected"] == 8 and found["closed_idle"] >= 6


def test_an_end_after_a_request_was_sent_is_a_loss_told_with_its_times() -> None:
    def second_time(connection: socket.socket, nth: int) -> bool:
        return well(connection, nth) if nth == 0 else False

    before_ns = time.monotonic_ns()
    with server(second_time) as url:
        found = Load([target(url)], connections=1, requests=2, seconds=20).run(lambda event: None)["all"]
    (loss,) = found["losses"]
    assert (found["ok"], loss["reason"], loss["reused"]) == (1, "closed unanswered", True)
    assert before_ns < loss["opened_ns"] < loss["sent_ns"] < loss["failed_ns"] < time.monotonic_ns()


def test_no_answer_within_the_time_out_is_a_loss() -> None:
    done = threading.Event()

    def silent(connection: socket.socket, nth: int) -> bool:
        done.wait(10)
        return False

    with server(silent) as url:
        made = Load([target(url)], connections=1, requests=1, seconds=20, shape=Shape(timeout_s=0.3))
        found = made.run(lambda event: None)["all"]
        done.set()
    assert found["reasons"] == {"no answer in 0.3 s": 1}


def test_a_server_that_was_asked_to_end_and_does_not_loses_the_request() -> None:
    done = threading.Event()

    def lingering(connection: socket.socket, nth: int) -> bool:
        connection.sendall(OK)
        done.wait(10)
        return False

    with server(lingering) as url:
        made = Load([target(url)], connections=1, requests=1, seconds=20, shape=Shape(Ends.SERVER, timeout_s=0.3))
        found = made.run(lambda event: None)["all"]
        done.set()
    assert (found["ok"], found["reasons"]) == (0, {"after the answer: no answer in 0.3 s": 1})


@pytest.mark.parametrize("wrong", [{"per_s": 0}, {"per_s": -1}, {"timeout_s": 0}])
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LabError, match="above 0"):
        Shape(**wrong)  # type: ignore[arg-type]
