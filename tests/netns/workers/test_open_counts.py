"""What a worker holds of each pod, as its supervisor reads it at any instant, and after its death."""

import os
from collections.abc import Callable, Iterator

import pytest

from proxy.model.routing import Protocol
from proxy.telemetry.open_counts import OpenCounts, make_shared
from proxy.workerlink import ReleasePod, ShareCounts
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import Server, Wire, get, ok

CLIENT = "client"
PATIENCE_TURNS = 50


@pytest.fixture
def counts(mesh: Mesh) -> Iterator[OpenCounts]:
    """Of the mesh's worker, which goes on with them after the test."""
    descriptor = make_shared()
    try:
        mesh.tell(ShareCounts(), (descriptor,))
        yield OpenCounts(descriptor)
    finally:
        os.close(descriptor)


def settles(mesh: Mesh, number: Callable[[], int], wanted: int) -> bool:
    for _ in range(PATIENCE_TURNS):
        if number() == wanted:
            return True
        mesh.turn()
    return False


def kept(mesh: Mesh, server: Server) -> tuple[Wire, Wire]:
    client = mesh.connect(mesh.service([server]))
    client.send(get())
    upstream = server.accept()
    upstream.head()
    upstream.send(ok())
    assert client.answer()[0] == 200
    return client, upstream


def test_each_connection_of_a_pod_counts_from_its_acceptance_to_its_end(mesh: Mesh, counts: OpenCounts) -> None:
    slot = counts.take()
    mesh.serve(CLIENT, 3, count_slot=slot)
    server = mesh.listen()
    clients = [kept(mesh, server)[0] for _ in range(3)]
    relayed = mesh.connect(mesh.service([server], Protocol.TCP))
    far_end = server.accept()
    assert settles(mesh, lambda: counts.number(slot), 4)
    clients.pop().close()
    assert settles(mesh, lambda: counts.number(slot), 3)
    relayed.close()
    mesh.turn()
    assert counts.number(slot) == 3, "the other half lives"
    far_end.close()
    for client in clients:
        client.close()
    assert settles(mesh, lambda: counts.number(slot), 0)


def test_a_pod_that_is_taken_up_again_counts_what_it_kept(mesh: Mesh, counts: OpenCounts) -> None:
    slot = counts.take()
    mesh.serve(CLIENT, 4, count_slot=slot)
    client, _ = kept(mesh, mesh.listen())
    mesh.tell(ReleasePod(CLIENT))
    mesh.turn()
    assert counts.number(slot) == 1
    other = counts.take()
    mesh.serve(CLIENT, 5, count_slot=other)
    assert counts.number(other) == 1
    client.close()
    assert settles(mesh, lambda: counts.number(other), 0)


def test_what_was_cut_at_the_end_of_a_drain_is_told_and_still_counted_until_then(
    mesh: Mesh, counts: OpenCounts
) -> None:
    """So that a worker that is killed in the middle has either told of it or still holds it: the supervisor frees the
    slot when it is told."""
    slot = counts.take()
    mesh.serve(CLIENT, 6, count_slot=slot)
    server = mesh.listen()
    relayed = mesh.connect(mesh.service([server], Protocol.TCP))
    relayed.send(b"x")
    assert server.accept().read(1) == b"x"
    mesh.forget(CLIENT, 0.0)
    assert len(mesh.forgotten().cut) == 1
    assert counts.number(slot) == 1
    counts.free(slot)
    mesh.turn()
    assert counts.number(slot) == 0, "nobody writes there any more"
