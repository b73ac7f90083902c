"""A sidecar that is gone: nothing gets past it meanwhile, and the next one goes on."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.lab.node import LabPod
from tests.netns.cases.application import Application, Seen, ask
from tests.netns.cases.wire import Family, dial, own
from tests.netns.sidecar.conftest import Place
from tests.netns.sidecar.rules import DIRECT_PORT

APPLICATION_PORT = 8080
SERVER_PORT = 8000


@contextmanager
def both(place: Place, family: Family) -> Iterator[tuple[Application, Application]]:
    """An application in the pod and one in the peer."""
    with (
        Application(place.pod.netns, family.of(place.pod), APPLICATION_PORT) as application,
        Application(place.peer.netns, family.of(place.peer), SERVER_PORT) as server,
    ):
        yield application, server


def calls(place: Place, family: Family) -> list[tuple[LabPod, tuple[str, int]]]:
    return [
        (place.pod, (family.of(place.peer), SERVER_PORT)),
        (place.peer, (family.of(place.pod), APPLICATION_PORT)),
    ]


def is_over(client: socket.socket) -> bool:
    """Ended or reset, and no word comes any more."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_b50_killed_it_is_missed_and_never_passed_by(place: Place, family: Family) -> None:
    with both(place, family) as (application, server):
        with place.sidecar.running() as running:
            for where, target in calls(place, family):
                with dial(where.netns, *target) as client:
                    ask(client, http=True)
            running.kill()
            told = len(application.seen), len(server.seen)
            for where, target in calls(place, family):
                for _ in range(20):
                    with pytest.raises(ConnectionRefusedError):
                        dial(where.netns, *target)
            assert (len(application.seen), len(server.seen)) == told
        with place.sidecar.running():
            for where, target in calls(place, family):
                with dial(where.netns, *target) as client:
                    assert ask(client, http=True).caller != own(client)


def test_an_excluded_port_does_without_it(place: Place, family: Family) -> None:
    target = (family.of(place.peer), DIRECT_PORT)
    with Application(place.peer.netns, *target), dial(place.pod.netns, *target) as client:
        assert ask(client, http=False) == Seen(own(client), target)


def test_a_connection_of_one_that_was_killed_ends_and_goes_nowhere_else(place: Place, family: Family) -> None:
    with both(place, family) as (application, server):
        with place.sidecar.running() as running:
            clients = [dial(where.netns, *target) for where, target in calls(place, family)]
            try:
                for client in clients:
                    ask(client, http=True)
                told = len(application.seen), len(server.seen)
                running.kill()
                for client in clients:
                    assert is_over(client)
            finally:
                for client in clients:
                    client.close()
        assert (len(application.seen), len(server.seen)) == told
