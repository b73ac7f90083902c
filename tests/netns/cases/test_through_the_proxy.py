"""Packet-path cases end to end: real agent, real proxy, and an application that tells whom it sees."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from typing import Final

import pytest

from agent.kernel import sock_diag
from agent.lab.node import Lab, LabPod
from agent.lab.spec import NODE_ADDRESS4, LabSpec, PodSpec
from proxy.api.constants import DNS_PORT, INBOUND_PORT, OUTBOUND_PORT, PROXY_METRICS_PORT
from tests.netns.cases.application import WHO, Application, Seen, ask, hear
from tests.netns.cases.sysctl import strict_reverse_path, sysctls
from tests.netns.cases.wire import TIMEOUT_S, Endpoint, Family, dial, end_by_reset, own

HTTP_PORT: Final = 8080
OPAQUE_PORT: Final = 5432
"""One of the default opaque ports: relayed as it is, so that each connection has an upstream of its own."""
LIVE_CONNECTIONS: Final = 2000
SPARE_PORTS: Final = 64
LOCAL_PORTS: Final = "net/ipv4/ip_local_port_range"

HAIRPIN: Final = """\
apiVersion: v1
kind: Service
metadata: {name: itself, namespace: default}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd96::10"]
  ipFamilies: [IPv4, IPv6]
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
SLICE: Final = """\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: itself-vFAMILY, namespace: default, labels: {kubernetes.io/service-name: itself}}
addressType: IPvFAMILY
ports: [{name: http, port: 8080}]
endpoints:
  - addresses: ["@server.addressFAMILY@"]
    conditions: {ready: true}
    targetRef: {kind: Pod, name: server, namespace: default}
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Lab]:
    """`server` and `client` are in the mesh, `stranger` is not; the Service at the VIP has `server` for its only
    endpoint."""
    left_out = (("headgate.io/mesh", "disabled"),)
    pods = (PodSpec("client"), PodSpec("server"), PodSpec("stranger", labels=left_out))
    with Lab(LabSpec(pods)) as lab:
        lab.write_object("itself", HAIRPIN + "".join(SLICE.replace("FAMILY", version) for version in "46"))
        lab.start()
        yield lab


@pytest.fixture(params=[True, False], ids=["http", "tcp"])
def http(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def application(mesh: Lab, family: Family, http: bool) -> Iterator[Application]:
    server = mesh.pod("server")
    with Application(server.netns, family.of(server), HTTP_PORT if http else OPAQUE_PORT) as application:
        yield application


def _ends_in(pod: LabPod, sock: socket.socket, port: int) -> bool:
    """Whether a socket on this local port of the pod is the other end of the connection, as the kernel tells."""
    address, number = own(sock)
    flows = pod.call(sock_diag.established)
    return any((str(f.remote), f.remote_port, f.local_port) == (address, number, port) for f in flows)


# ── Who is seen ────────────────────────────────────────────────────────────────────────────────────────────────────
def _assert_the_caller_is_seen(mesh: Lab, caller: LabPod, family: Family, *, http: bool) -> None:
    server = mesh.pod("server")
    target = (family.of(server), HTTP_PORT if http else OPAQUE_PORT)
    with dial(caller.netns, *target) as client:
        seen = ask(client, http=http)
        assert seen.caller[0] == family.of(caller)
        assert seen.called == target
        if caller.name == "stranger":
            assert _ends_in(server, client, INBOUND_PORT), "the proxy was not in the way"
        else:
            assert _ends_in(caller, client, OUTBOUND_PORT), "the caller's own proxy was not in the way"


@pytest.mark.parametrize("name", ["stranger", "client"])
def test_b22_the_application_sees_the_clients_address(
    mesh: Lab, application: Application, family: Family, http: bool, name: str
) -> None:
    caller = mesh.pod(name)
    _assert_the_caller_is_seen(mesh, caller, family, http=http)
    assert {seen.caller[0] for seen in application.seen} == {family.of(caller)}


@pytest.mark.parametrize("name", ["stranger", "client"])
def test_b23_the_application_sees_the_clients_address_under_strict_reverse_path_filtering(
    mesh: Lab, application: Application, family: Family, http: bool, name: str
) -> None:
    caller = mesh.pod(name)
    with strict_reverse_path(mesh.pod("server").netns), strict_reverse_path(mesh.pod("client").netns):
        _assert_the_caller_is_seen(mesh, caller, family, http=http)
    assert {seen.caller[0] for seen in application.seen} == {family.of(caller)}


# ── A Service that is oneself ──────────────────────────────────────────────────────────────────────────────────────
def test_b06_a_vip_that_resolves_to_the_caller_itself_is_served_by_it_and_does_not_loop(
    mesh: Lab, family: Family
) -> None:
    server, before = mesh.pod("server"), _total(mesh, "istio_requests_total", reporter="source")
    with Application(server.netns, family.of(server), HTTP_PORT) as application:
        with dial(server.netns, family.vip, 80) as client:
            for _ in range(10):
                seen = ask(client, http=True)
                assert seen.caller[0] == family.of(server)
                assert seen.called == (family.of(server), HTTP_PORT)
            assert _ends_in(server, client, OUTBOUND_PORT)
        assert len(application.seen) == 1, "one connection carries them all"
    after = before + 10
    mesh.wait("ten requests to be counted", lambda: _total(mesh, "istio_requests_total", reporter="source") >= after)
    assert _total(mesh, "istio_requests_total", reporter="source") == after, "each was led through the proxy once"


# ── Calls to the proxy itself ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("port", [OUTBOUND_PORT, INBOUND_PORT, DNS_PORT])
@pytest.mark.parametrize("name", ["stranger", "client"])
def test_b32_a_call_to_a_proxy_port_of_another_pod_is_refused(mesh: Lab, family: Family, name: str, port: int) -> None:
    _assert_refused(mesh, mesh.pod(name), (family.of(mesh.pod("server")), port), "inbound")


@pytest.mark.parametrize("port", [OUTBOUND_PORT, INBOUND_PORT])
@pytest.mark.parametrize("to", ["loopback", "own address"])
def test_b32_a_call_to_the_pods_own_proxy_is_refused(mesh: Lab, family: Family, to: str, port: int) -> None:
    server = mesh.pod("server")
    address = family.loopback if to == "loopback" else family.of(server)
    _assert_refused(mesh, server, (address, port), "outbound" if port == OUTBOUND_PORT else "inbound")


def _assert_refused(mesh: Lab, caller: LabPod, target: Endpoint, direction: str) -> None:
    """The connection ends without a byte, was met once and by the direction named, and nothing of it stays."""
    before = _self_calls(mesh)
    # The reset may come before connect(2) has returned, or between any two calls after it.
    with suppress(ConnectionResetError, BrokenPipeError), dial(caller.netns, *target) as client:
        client.sendall(WHO)
        assert client.recv(1) == b""
    expected = before | {direction: before.get(direction, 0) + 1}
    mesh.wait("the refusal to be counted", lambda: _self_calls(mesh) != before)
    assert _self_calls(mesh) == expected
    pods = {mesh.pod("server"), caller}
    mesh.wait("the connection to be gone", lambda: not any(_is_connected(pod, target[1]) for pod in pods))


def _is_connected(pod: LabPod, port: int) -> bool:
    return any(flow.remote_port == port for flow in pod.call(sock_diag.established))


# ── Many connections of one client ─────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def same_ports(mesh: Lab) -> Iterator[range]:
    """Ports for clients. The proxy's upstreams in the server's pod are given the same ones, and a few more: some may be
    in TIME_WAIT since the tests before."""
    ports = range(40_000, 40_000 + LIVE_CONNECTIONS)
    with sysctls(mesh.pod("server").netns, {LOCAL_PORTS: f"{ports[0]} {ports[-1] + SPARE_PORTS}"}):
        yield ports


def test_b55_2000_live_connections_of_one_client_through_the_proxy(
    mesh: Lab, family: Family, same_ports: range
) -> None:
    stranger, server = mesh.pod("stranger"), mesh.pod("server")
    live: list[socket.socket] = []
    with Application(server.netns, family.of(server), OPAQUE_PORT) as application, ExitStack() as stack:
        stack.callback(lambda: end_by_reset(live))
        for port in same_ports:
            live.append(dial(stranger.netns, family.of(server), OPAQUE_PORT, from_port=port))
            live[-1].sendall(WHO)
        seen = [hear(sock) for sock in live]
        callers = {one.caller for one in seen}
        assert {address for address, _ in callers} == {family.of(stranger)}
        assert len(application.seen) == LIVE_CONNECTIONS, "all live at once"
        shared = {port for _, port in callers} & set(same_ports)
        assert len(shared) >= LIVE_CONNECTIONS - SPARE_PORTS, "as good as each tuple is a living client's too"
        assert [ask(sock, http=False) for sock in live] == seen, "each still reaches its own upstream"


def test_b55_the_upstream_is_forced_onto_the_clients_very_port(mesh: Lab, family: Family) -> None:
    stranger, server = mesh.pod("stranger"), mesh.pod("server")
    target = (family.of(server), OPAQUE_PORT)
    port = 45_678
    with (
        Application(server.netns, *target),
        sysctls(server.netns, {LOCAL_PORTS: f"{port} {port}"}),
        dial(stranger.netns, *target, from_port=port) as client,
    ):
        assert ask(client, http=False) == Seen(own(client), target)


# ── The proxy's figures ────────────────────────────────────────────────────────────────────────────────────────────
def _self_calls(mesh: Lab) -> dict[str, int]:
    return {
        direction: _total(mesh, "headgate_self_calls_total", direction=direction)
        for direction in ("inbound", "outbound")
    }


def _total(mesh: Lab, name: str, **labels: str) -> int:
    with mesh.node.connect(NODE_ADDRESS4, PROXY_METRICS_PORT, timeout_s=TIMEOUT_S) as sock:
        connection = HTTPConnection("localhost")
        connection.sock = sock
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    total = 0.0
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(f'{key}="{worth}"' in series for key, worth in labels.items()):
            total += float(value)
    return round(total)
