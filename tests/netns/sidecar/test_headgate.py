"""headgate's own sidecar behind Istio's rules: what it refuses, what it does without, and how it lives and ends."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.lab.admin import get_json, get_status
from agent.lab.node import LabPod, headgate
from proxy.api.constants import PROXY_METRICS_PORT, PROXY_READY_PORT
from tests.netns.cases.application import Application, Seen, ask
from tests.netns.cases.wire import Family, dial, own, read_all
from tests.netns.sidecar.conftest import Place
from tests.netns.sidecar.sidecars import END_S, USER, Kind, Sidecar, as_user, refusal, wait_for

APPLICATION_PORT = 8080
SERVER_PORT = 8000


@pytest.fixture(scope="module")
def kind() -> Kind:
    return Kind.PLAIN


def ask_at(where: LabPod, address: str) -> Seen:
    with dial(where.netns, address, APPLICATION_PORT) as client:
        return ask(client, http=True)


def test_as_a_user_that_the_rules_do_not_know_it_does_not_start(place: Place) -> None:
    command = as_user(*headgate(), "proxy", "--sidecar", "--run-dir", str(place.sidecar.directory / "run"), user=1000)
    status, said = refusal(place.pod, command)
    assert status == 1
    assert "cannot start: what this process sends over IPv4 is led back to itself" in said
    assert "it runs as user 1000, group 1000: run it as one that `headgate init` was told with --proxy-uid" in said
    assert "Traceback" not in said


def test_without_its_address_on_lo_inbound_ipv6_is_refused_and_the_rest_is_served(place: Place) -> None:
    """What it would send from the pod's own address is led back to it."""
    with ExitStack() as stack:
        stack.callback(place.pod.run, ["ip", "address", "replace", "::6/128", "dev", "lo", "nodad"])
        place.pod.run(["ip", "address", "delete", "::6/128", "dev", "lo"])
        running = stack.enter_context(place.sidecar.running())
        assert "IPv6 calls of the application are refused" in place.sidecar.log()
        assert "ip address add ::6/128 dev lo" in place.sidecar.log()
        for address in (place.pod.address4, place.pod.address6):
            stack.enter_context(Application(place.pod.netns, str(address), APPLICATION_PORT))
        assert ask_at(place.peer, str(place.pod.address4)).caller[0] == "127.0.0.6"
        with pytest.raises(ConnectionResetError):  # before connect returns, or later
            ask_at(place.peer, str(place.pod.address6))
        # As soon as it is there it is used.
        place.pod.run(["ip", "address", "add", "::6/128", "dev", "lo", "nodad"])
        assert ask_at(place.peer, str(place.pod.address6)).caller[0] == "::6"
        assert running.terminate() == 0


def test_readiness_and_metrics_can_be_asked_from_outside(place: Place, family: Family) -> None:
    with place.sidecar.running():
        for port, path in ((PROXY_READY_PORT, "/healthz/ready"), (PROXY_METRICS_PORT, "/metrics")):
            assert get_status(lambda: place.peer.netns.connect(family.of(place.pod), port), path) == 200  # noqa: B023


def test_it_writes_nowhere_but_in_its_run_directory(place: Place, family: Family) -> None:
    run = place.sidecar.directory / "run"
    mounts = f"mount -t tmpfs -o uid={USER},mode=700 tmpfs {run} && mount -o remount,bind,ro / && exec"
    target = (family.of(place.peer), SERVER_PORT)
    with (
        place.sidecar.running(around=("unshare", "--mount", "sh", "-ec", f'{mounts} "$@"', "sh")),
        Application(place.peer.netns, *target),
        dial(place.pod.netns, *target) as client,
    ):
        assert ask(client, http=True).caller != own(client)


def test_sigterm_lets_a_request_finish_and_takes_no_new_connection(place: Place) -> None:
    target = (str(place.peer.address4), 9000)
    with ExitStack() as stack:
        listener = stack.enter_context(place.peer.netns.listen(*target))
        listener.settimeout(END_S)
        running = stack.enter_context(place.sidecar.running("--drain-s", "20"))
        client = stack.enter_context(dial(place.pod.netns, *target))
        client.sendall(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n")
        served = stack.enter_context(listener.accept()[0])
        served.settimeout(END_S)
        assert served.recv(65_536).startswith(b"GET / HTTP/1.1\r\n")
        running.process.send_signal(signal.SIGTERM)
        wait_for("its listeners to be closed", lambda: not place.sidecar.listens(), place.sidecar.log)
        with pytest.raises(ConnectionRefusedError):
            dial(place.pod.netns, *target)
        served.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
        assert read_all(client).endswith(b"\r\n\r\ndone")
        assert running.process.wait(END_S) == 0


def test_a_worker_that_is_killed_is_replaced_and_no_connection_refused(place: Place, family: Family) -> None:
    target = (family.of(place.peer), SERVER_PORT)
    with Application(place.peer.netns, *target), place.sidecar.running() as running:
        pid = running.process.pid
        worker = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        os.kill(worker, signal.SIGKILL)
        with dial(place.pod.netns, *target) as client:
            client.settimeout(END_S)
            assert ask(client, http=True).caller != own(client)


def test_every_worker_is_there_for_the_pod(place: Place) -> None:
    with place.sidecar.running("--workers", "2"):
        wait_for("two workers to serve", lambda: _workers(place.sidecar) == [0, 1], place.sidecar.log)


def _workers(sidecar: Sidecar) -> list[int]:
    (pod,) = get_json(sidecar.directory / "run" / "proxy-admin.sock", "/pods")
    return sorted(pod["workers"])
