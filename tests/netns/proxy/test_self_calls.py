"""B32: nobody reaches the proxy through itself; calls to its own ports are reset, counted, and never loop."""

import pytest

from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROOF_PORT
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.workerlink import ProofSeen
from tests.netns.proxy.mesh import Mesh
from tests.netns.proxy.wire import get, ok

PORTS = pytest.mark.parametrize("port", [OUTBOUND_PORT, INBOUND_PORT])


def self_calls(mesh: Mesh) -> dict[str, int]:
    counters = mesh.telemetry().counters
    return {key.label_values[0]: count for key, count in counters if key.name == "headgate_self_calls"}


@PORTS
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("caller", ["server", "node"])
def test_b32_a_call_from_outside_to_a_port_of_the_proxy_is_reset(
    mesh: Mesh, port: int, family: int, caller: str
) -> None:
    self_calls(mesh)
    assert mesh.resets(SocketAddress(mesh.address("guarded", family), port), caller)
    assert self_calls(mesh) == {"inbound": 1}


@PORTS
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_b32_a_call_from_inside_over_loopback_is_reset(mesh: Mesh, port: int, host: str) -> None:
    self_calls(mesh)
    assert mesh.resets(SocketAddress(host, port))
    assert sum(self_calls(mesh).values()) == 1


@PORTS
@pytest.mark.parametrize("family", [4, 6])
def test_b32_a_call_from_inside_to_the_pods_own_address_is_reset(mesh: Mesh, port: int, family: int) -> None:
    self_calls(mesh)
    assert mesh.resets(SocketAddress(mesh.address("client", family), port))
    assert sum(self_calls(mesh).values()) == 1


@PORTS
def test_b32_a_call_to_the_proxy_port_of_another_enrolled_pod_ends_there(mesh: Mesh, port: int) -> None:
    self_calls(mesh)
    client = mesh.connect(SocketAddress(mesh.address("guarded"), port))
    client.send(b"\x00")  # the caller's proxy relays it; the callee's refuses
    assert client.is_reset()
    assert self_calls(mesh) == {"inbound": 1}


def test_a_port_number_of_the_proxy_elsewhere_is_an_ordinary_destination(mesh: Mesh) -> None:
    server = mesh.listen(port=OUTBOUND_PORT)
    client = mesh.connect(server)
    client.send(get())
    upstream = server.accept()
    assert upstream.head() == get()
    upstream.send(ok())
    assert client.answer()[0] == 200


def test_a_caller_that_is_gone_before_it_is_looked_at_does_no_harm(mesh: Mesh) -> None:
    """Its socket has no peer any more."""
    before = mesh.open_files()
    mesh.pause_worker()
    for port in (OUTBOUND_PORT, INBOUND_PORT, 80, PROOF_PORT):
        for host in (mesh.address("server"), mesh.address("guarded")):
            mesh.connect(SocketAddress(host, port)).reset()
    mesh.resume_worker()
    mesh.until(lambda: mesh.open_files() <= before, "the worker to drop them")
    client = mesh.connect(mesh.service([]))
    client.send(get())
    assert client.answer()[0] == 503


# ── The agent's proof ───────────────────────────────────────────────────────────────────────────────────────────────

NONCE = "0123456789abcdef" * 2


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [48, 1], ids=["whole", "in single bytes"])
def test_a_proof_is_reported_with_where_it_was_going_and_answered(mesh: Mesh, family: int, size: int) -> None:
    unused = {4: "10.77.0.250", 6: "fd77::250"}[family]
    client = mesh.connect(SocketAddress(unused, PROOF_PORT))
    proof = b"HEADGATE-PROOF " + NONCE.encode() + b"\n"
    client.send(*(proof[i : i + size] for i in range(0, len(proof), size)))
    assert client.rest() == b"HEADGATE-PROVED\n"
    seen = mesh.expect(ProofSeen)
    assert (seen.nonce, seen.direction) == (NONCE, Direction.OUTBOUND)
    assert (seen.original_destination, seen.port) == (unused, PROOF_PORT)
    assert seen.netns_cookie == mesh.netns_cookie("client")


@pytest.mark.parametrize("family", [4, 6])
def test_a_proof_from_the_node_is_reported_inbound(mesh: Mesh, family: int) -> None:
    client = mesh.connect(SocketAddress(mesh.address("guarded", family), PROOF_PORT), "node")
    client.send(b"HEADGATE-PROOF " + NONCE.encode() + b"\n")
    assert client.rest() == b"HEADGATE-PROVED\n"
    seen = mesh.expect(ProofSeen)
    assert (seen.direction, seen.netns_cookie) == (Direction.INBOUND, mesh.netns_cookie("guarded"))
    assert seen.original_destination == mesh.address("guarded", family)


@pytest.mark.parametrize(
    "words",
    [
        *(b"HEADGATE-PROOF " + NONCE.upper().encode() + b"\n", b"HEADGATE-PROOF " + NONCE.encode() + b"\r"),
        *(b"HEADGATE-PROOF " + NONCE.encode() + b"\nX", b"HEADGATE-TEST!! " + NONCE.encode() + b"\n", b"hello\n"),
    ],
)
def test_anything_else_on_the_proofs_port_is_ordinary_traffic(mesh: Mesh, words: bytes) -> None:
    server = mesh.listen(port=PROOF_PORT)
    client = mesh.connect(server)
    client.send(words)
    assert server.accept().read(len(words)) == words


def test_a_server_that_speaks_first_may_live_on_the_proofs_port(mesh: Mesh) -> None:
    """The agent's proof comes at once; who waits for a greeting is somebody else."""
    server = mesh.listen(port=PROOF_PORT)
    client = mesh.connect(server)
    server.accept().send(b"220 ready\r\n")
    assert client.read(11) == b"220 ready\r\n"
