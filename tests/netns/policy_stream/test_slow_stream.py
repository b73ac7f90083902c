"""Restart with a slow object stream and a route that sends everything to v2: nothing reaches v1, and nothing is served
before its policy is there. Agent, proxy, a relay between them that throttles, and clients that call all the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from agent.lab import admin
from agent.lab.node import Lab
from agent.reconcile.entering import AWAITS_POLICY
from tests.netns.faults.conftest import Record
from tests.netns.faults.traffic import killed
from tests.netns.policy_stream.callers import Callers
from tests.netns.policy_stream.relay import Relay

VIPS = ("10.96.0.10", "fd96::10")
ALL_TO_V2 = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v2}}]}]}
"""
BALLAST = "\n---\n".join(
    f"""apiVersion: v1
kind: Service
metadata: {{name: other-{number}, namespace: default}}
spec: {{clusterIP: 10.97.{number >> 8}.{number & 255}, ports: [{{name: http, port: 80}}]}}"""
    for number in range(1, 801)
)
"""Between the Service and its route: at the relay's pace it takes about four seconds."""


PROVED_WITHIN_S = 1.5
"""Three pods prove in a tenth of that. What was tried before, in vain, would be tried again after up to 5 s."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The Service's own objects come first by name, its route last."""
    with Lab() as made:
        made.remove_object("split")
        made.write_object("x-ballast", BALLAST)
        made.write_object("z-route", ALL_TO_V2)
        yield made


@pytest.fixture
def relay(lab: Lab, tmp_path: Path) -> Iterator[Relay]:
    """The proxy's run directory: the agent's sockets, but for objects.sock."""
    for name in ("zds.sock", "fds.sock"):
        (tmp_path / name).symlink_to(lab.run_directory / name)
    with Relay(tmp_path / "objects.sock", lab.run_directory / "objects.sock") as made:
        yield made


def start_proxy(lab: Lab, tmp_path: Path) -> None:
    lab.start_proxy("--run-dir", str(tmp_path), own_objects=False)


def start_agent(lab: Lab) -> None:
    lab.start_agent("--objects-dir", str(lab.config_directory), cleanup_on_exit=False)


@contextmanager
def everything(lab: Lab, relay: Relay, tmp_path: Path) -> Iterator[Callers]:
    """Steered, served and called, over a fast stream."""
    with ExitStack() as stack:
        start_agent(lab)
        start_proxy(lab, tmp_path)
        lab.wait_ready()
        lab.wait_proved()
        callers = stack.enter_context(Callers(lab.pod("client"), VIPS))
        lab.wait("calls to be answered", lambda: len(callers.answers) > 50)
        yield callers


def requests_at(lab: Lab, pod: str) -> float:
    """Requests that reached the pod's application, as its own proxy counts them since it started."""
    page = lab.node.run(["curl", "-sf", "http://127.0.0.1:15020/metrics"]).stdout
    lines = [line for line in page.splitlines() if line.startswith("istio_requests_total{")]
    wanted = [one for one in lines if 'reporter="destination"' in one and f'destination_workload="{pod}"' in one]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


def served_by_its_policy_alone(lab: Lab, relay: Relay, tmp_path: Path, callers: Callers, start_s: float) -> None:
    """From `start_s` on: no answer before the stream had told everything, and v2's alone after."""

    def held() -> bool:
        with suppress(admin.AdminError):
            return [pod["state"] for pod in proxy_pods(tmp_path)] == 3 * ["waiting for its object"]
        return False

    lab.wait("the workers to hold all pods' listeners", held)
    assert (relay.synced_s or 0.0) < start_s, "long before the stream has told everything"
    lab.wait("the stream to have told everything", lambda: (relay.synced_s or 0.0) > start_s)
    assert relay.synced_s is not None
    synced_s = relay.synced_s
    lab.wait("calls to be answered again", lambda: len(callers.since(synced_s)) > 50)
    answers = callers.since(start_s)
    assert [one for one in answers if one.at_s < synced_s] == []
    assert {(one.status, one.pod) for one in answers} == {(200, "web-v2")}
    assert requests_at(lab, "web-v1") == 0
    assert requests_at(lab, "web-v2") >= len(answers) - 50, "the count is one of requests"


def test_restart_with_a_slow_object_stream_sends_nothing_to_v1_and_serves_nothing_before_its_policy(
    lab: Lab, relay: Relay, tmp_path: Path, loss: Record
) -> None:
    with everything(lab, relay, tmp_path) as callers:
        relay.slow = True
        death = killed(lab, "proxy")
        killed_s = time.monotonic()
        start_proxy(lab, tmp_path)
        served_by_its_policy_alone(lab, relay, tmp_path, callers, killed_s)
        verdict = callers.verdict(death)
        waited_s = (relay.synced_s or killed_s) - killed_s
    loss("stream-1-proxy-killed", verdict, note=f"nothing is served before its policy is there, after {waited_s:.1f} s")
    assert verdict.failed == {}, callers.losses
    assert {one.pod for one in callers.answers} == {"web-v2"}


def test_first_start_with_a_slow_object_stream_serves_nothing_before_its_policy(
    lab: Lab, relay: Relay, tmp_path: Path
) -> None:
    relay.slow = True
    with Callers(lab.pod("client"), VIPS) as callers:
        start_s = time.monotonic()
        start_proxy(lab, tmp_path)
        start_agent(lab)
        served_by_its_policy_alone(lab, relay, tmp_path, callers, start_s)


def test_stream_that_breaks_off_and_begins_anew_slowly_changes_nothing_until_it_has_told_everything(
    lab: Lab, relay: Relay, tmp_path: Path, loss: Record
) -> None:
    """The agent restarts; the route has gone meanwhile. It stays in force until everything has been told again."""
    with everything(lab, relay, tmp_path) as callers:
        relay.slow, relay.synced_s = True, None
        lab.kill("agent")
        lab.remove_object("z-route")
        killed_s = time.monotonic()
        start_agent(lab)
        lab.wait("the stream to begin anew", lambda: 0 < relay.passed_bytes < 80_000)
        lab.wait("everything to be told again", lambda: relay.synced_s is not None)
        synced_s = relay.synced_s
        assert synced_s is not None
        lab.wait("v1 to be called too", lambda: any(one.pod == "web-v1" for one in callers.answers))
        before = [one for one in callers.since(killed_s) if one.at_s < synced_s]
        assert len(before) > 10, "calls were answered all the time"
        assert {(one.status, one.pod) for one in before} == {(200, "web-v2")}
        verdict = callers.verdict()
    loss("stream-2-agent-killed", verdict, note="the route goes on until everything has been told again")
    assert (verdict.failed, verdict.cut) == ({}, 0), callers.losses


def test_pod_waits_for_its_own_object_and_the_others_do_not(lab: Lab, relay: Relay, tmp_path: Path) -> None:
    own = (lab.config_directory / "pod-client.yaml").read_text()
    lab.remove_object("pod-client")
    with Callers(lab.pod("client"), VIPS) as callers:
        start_agent(lab)
        start_proxy(lab, tmp_path)

        def states() -> dict[str, str]:
            return {str(pod["name"]): str(pod["state"]) for pod in proxy_pods(tmp_path)}

        lab.wait(
            "the client to wait",
            lambda: states() == {"client": "waiting for its object", "web-v1": "served", "web-v2": "served"},
        )
        lab.wait("the others to be proved", lambda: proved(lab, "web-v1", "web-v2"))
        assert callers.answers == []
        assert not proved(lab, "client")
        lab.write_object("pod-client", own)
        lab.wait_ready()
        lab.wait_proved()
        assert states() == dict.fromkeys(("client", "web-v1", "web-v2"), "served")
        lab.wait("calls to be answered", lambda: len(callers.answers) > 20)


def test_pods_are_proved_as_soon_as_the_policy_is_there_and_no_proof_fails_before(
    lab: Lab, relay: Relay, tmp_path: Path
) -> None:
    relay.slow = True
    start_agent(lab)
    start_proxy(lab, tmp_path)
    proved_with_the_policy(lab, relay, tmp_path)


def test_pods_that_were_proved_wait_for_the_next_proxys_policy_too(lab: Lab, relay: Relay, tmp_path: Path) -> None:
    start_agent(lab)
    start_proxy(lab, tmp_path)
    lab.wait_ready()
    lab.wait_proved()
    relay.slow, relay.synced_s = True, None
    lab.kill("proxy")
    start_proxy(lab, tmp_path)
    proved_with_the_policy(lab, relay, tmp_path)


def proved_with_the_policy(lab: Lab, relay: Relay, tmp_path: Path) -> None:
    def told() -> bool:
        return [(pod["state"], pod["reason"]) for pod in lab.agent_pods()] == 3 * [("installed", AWAITS_POLICY)]

    def in_force() -> bool:
        return None not in admin.get_json(tmp_path / "proxy-admin.sock", "/policy")["in_force"]

    lab.wait("the agent to say what proofs wait for", told)
    assert relay.synced_s is None, "long before the stream has told everything"
    lab.wait("the policy to be in force", in_force)
    in_force_s = time.monotonic()
    lab.wait_proved()
    assert time.monotonic() - in_force_s < PROVED_WITHIN_S
    assert "is not proved:" not in lab.log("agent")


def proxy_pods(run_directory: Path) -> list[dict[str, object]]:
    return list(admin.get_json(run_directory / "proxy-admin.sock", "/pods"))


def proved(lab: Lab, *names: str) -> bool:
    states = {pod["name"]: pod["state"] for pod in lab.agent_pods()}
    return all(states.get(name) == "proved" for name in names)
