"""headgate's own sidecar in pods that are not as it would have them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.lab.admin import get_status
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROXY_METRICS_PORT, PROXY_READY_PORT
from tests.netns.cases.application import Application, ask
from tests.netns.cases.wire import Family, dial, own, read_all
from tests.netns.sidecar.conftest import Place
from tests.netns.sidecar.rules import BY_MARK, ruled
from tests.netns.sidecar.sidecars import Counts, Kind, Sidecar, prepared, refusal

APPLICATION_PORT = 8080
SERVER_PORT = 8000
STRANGER = 1000
"""A user that no rule knows."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab:
        yield lab


@pytest.fixture(scope="module")
def place(lab: Lab) -> Iterator[Place]:
    """A pod without rules."""
    with prepared(lab, lab.pod("pod"), Kind.PLAIN) as sidecar:
        yield Place(lab.pod("pod"), lab.pod("peer"), sidecar, lab.node)


def test_b32_where_only_some_calls_come_back_to_it_those_are_refused(place: Place, lab: Lab, family: Family) -> None:
    """Rules that steer these networks only, and a user that they do not know: it cannot be seen at the start."""
    words = ("istio", "--dual-stack", "-u", "1337", "-b", "*", "-i", "10.77.0.0/24,fd77::/64")
    target = (family.of(place.peer), SERVER_PORT)
    with ExitStack() as stack:
        stack.enter_context(ruled(place.pod, *words))
        sidecar = stack.enter_context(prepared(lab, place.pod, Kind.PLAIN, user=STRANGER))
        stack.enter_context(sidecar.running())
        server = stack.enter_context(Application(place.peer.netns, *target))
        for _ in range(3):
            with dial(place.pod.netns, *target) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n")
                answer = read_all(client)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"it is led back to this sidecar, which the pod's rules do not know as the proxy" in answer
        assert sidecar.counts().outbound < 10, "each of the three came back once at most, or a few times"
        assert server.seen == []


def test_without_the_mark_that_the_rules_go_by_it_does_not_start(place: Place) -> None:
    with ruled(place.pod, *BY_MARK):
        status, said = refusal(place.pod, place.sidecar.command())
    assert status == 1
    assert "or with CAP_NET_ADMIN where the rules go by mark" in said


def test_with_the_mark_that_the_rules_go_by_it_serves(place: Place, lab: Lab, family: Family) -> None:
    """Rules of a node's proxy, and the sidecar in its place."""
    pod, peer = place.pod, place.peer
    with ExitStack() as stack:
        stack.enter_context(ruled(pod, *BY_MARK))
        sidecar = Sidecar(lab, pod, Kind.TRANSPARENT, place.sidecar.directory)
        stack.enter_context(sidecar.running())
        stack.enter_context(Application(peer.netns, family.of(peer), SERVER_PORT))
        stack.enter_context(Application(pod.netns, family.of(pod), APPLICATION_PORT))
        before = sidecar.counts()
        with dial(pod.netns, family.of(peer), SERVER_PORT) as client:
            assert ask(client, http=True).caller != own(client)
        with dial(peer.netns, family.of(pod), APPLICATION_PORT) as client:
            assert ask(client, http=True).caller[0] == family.of(peer)
        assert sidecar.counts() - before == Counts(1, 1)
        # Led through the sidecar itself: these rules exclude no port.
        assert get_status(lambda: peer.netns.connect(family.of(pod), PROXY_READY_PORT), "/healthz/ready") == 200


def test_in_a_pod_without_rules_it_says_whom_the_application_will_see(place: Place) -> None:
    with place.sidecar.running():
        log = place.sidecar.log()
    assert "the application sees its IPv4 clients as 127.0.0.6" in log
    assert f"the application sees its IPv6 clients as {place.pod.address6}: ::6 is not on lo" in log


def test_b32_a_call_of_its_outbound_listener_that_no_rule_redirects_goes_nowhere(place: Place, family: Family) -> None:
    """From outside: inbound need not be captured. It would go on to the very address that it came by."""
    with place.sidecar.running():
        # Before connect returns, or later.
        with pytest.raises(ConnectionResetError), dial(place.peer.netns, family.of(place.pod), OUTBOUND_PORT) as client:
            client.recv(1)
        _, metrics = place.sidecar.get(PROXY_METRICS_PORT, "/metrics")
    assert 'headgate_self_calls_total{direction="outbound"} 1\n' in metrics


@pytest.mark.parametrize("port", [OUTBOUND_PORT, INBOUND_PORT])
def test_b31_a_taken_port_is_named_and_nothing_is_left_open(place: Place, port: int) -> None:
    with place.pod.netns.listen("0.0.0.0", port):
        status, said = refusal(place.pod, place.sidecar.command())
    assert status == 1
    assert f"cannot start: port {port}/tcp4 of this pod is already taken by" in said
    assert "take the other sidecar out, or move that application to another port" in said
    assert not place.sidecar.listens()


def test_a_run_directory_that_cannot_be_made_is_named_with_the_remedy(place: Place) -> None:
    status, said = refusal(place.pod, place.sidecar.command("--run-dir", str(place.sidecar.directory / "not" / "mine")))
    assert status == 1
    assert "not/mine cannot be made: Permission denied; choose one that this user may write with --run-dir" in said


def test_the_socket_of_another_users_sidecar_is_named_with_the_remedy(place: Place) -> None:
    path = place.sidecar.directory / "run" / "proxy-admin.sock"
    path.unlink(missing_ok=True)  # of one that was killed
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        path.chmod(0o600)
        status, said = refusal(place.pod, place.sidecar.command())
    path.unlink()
    assert status == 1
    assert f"cannot start: {path} is another user's: remove it, or choose another --run-dir" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--pod-name", "a b"), ("--pod-name", "Web"), ("--pod-namespace", "a.b"), ("--service-account", "\x1b[31m")],
)
def test_what_is_no_name_is_wrong_usage(place: Place, option: str, value: str) -> None:
    status, said = refusal(place.pod, place.sidecar.command(option, value))
    assert status == 2
    assert f"Invalid value for {option}" in said
    assert "\x1b" not in said


def test_there_is_nothing_to_take_over(place: Place) -> None:
    status, said = refusal(place.pod, place.sidecar.command("--take-over"))
    assert (status, "--take-over: a sidecar ends with its container" in said) == (2, True)
