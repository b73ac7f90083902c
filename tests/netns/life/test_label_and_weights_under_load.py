"""A pod is taken out of the mesh and put back, and weights move, under keep-alive load: no request fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab
from tests.netns.life import kernel

MESH = "headgate.io/mesh"
VIP = ["http://10.96.0.10/", "http://[fd96::10]/"]
ROUNDS = 2
AT_LEAST = 100
"""Requests between two changes: enough that each of the eight connections is used many times."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.start_proxy()
        made.start_agent("--drain-s", "20")
        made.wait_ready()
        made.wait_proved()
        yield made


class _Load:
    def __init__(self, load: RunningLoad) -> None:
        self._load = load
        self._phases = 0

    def goes_on(self) -> None:
        self._phases += 1
        self._load.begin(f"phase-{self._phases}")
        self._load.until(AT_LEAST, lambda _: None, timeout_s=10)

    def split(self, name: str) -> None:
        self._load.begin(name)
        self._load.until(600, lambda _: None, timeout_s=20)


@contextlib.contextmanager
def _load_without_failure(lab: Lab, urls: list[str]) -> Iterator[_Load]:
    result: dict[str, dict[str, object]] = {}
    with RunningLoad(lab.pod("client"), urls, connections=8, seconds=60) as load:
        yield _Load(load)
        result = load.stop()
    assert result["all"]["failed"] == 0, result["all"]
    assert result["all"]["ok"] == result["all"]["sent"]


def _direct(lab: Lab) -> list[str]:
    web = lab.pod("web-v1")
    return [f"http://{web.address4}:8080/", f"http://[{web.address6}]:8080/"]


def test_client_label_off_and_on_while_it_calls_a_service_fails_no_request(lab: Lab) -> None:
    with _load_without_failure(lab, VIP) as load:
        for _ in range(ROUNDS):
            load.goes_on()
            lab.set_label("client", MESH, "disabled")
            kernel.wait_state(lab, "client", "leaving")  # the drain form: the load's connections stay steered
            load.goes_on()
            lab.set_label("client", MESH, None)
            lab.wait_proved("client")
        load.goes_on()


@pytest.mark.parametrize("urls", ["service", "pod"])
def test_server_label_off_and_on_while_it_is_called_fails_no_request(lab: Lab, urls: str) -> None:
    with _load_without_failure(lab, VIP if urls == "service" else _direct(lab)) as load:
        for _ in range(ROUNDS):
            load.goes_on()
            lab.set_label("web-v1", MESH, "disabled")
            kernel.wait_state(lab, "web-v1", "leaving")
            load.goes_on()
            lab.set_label("web-v1", MESH, None)
            lab.wait_proved("web-v1")
        load.goes_on()


def test_label_off_before_the_load_and_on_under_it_leaves_its_connections_alone_and_fails_no_request(lab: Lab) -> None:
    """Off to the end, on again: the load's connections are then older than the rules."""
    lab.set_label("client", MESH, "disabled")
    kernel.wait_state(lab, "client", "disabled")
    with _load_without_failure(lab, _direct(lab)) as load:
        for _ in range(ROUNDS):
            load.goes_on()
            lab.set_label("client", MESH, None)
            lab.wait_proved("client")
            load.goes_on()
            assert kernel.pod_state(lab, "client")["grandfathered_connections"] == 8
            lab.set_label("client", MESH, "disabled")
            kernel.wait_state(lab, "client", "disabled")  # nothing is steered, so nothing is waited for
            assert kernel.rules(lab.pod("client").netns) == kernel.NO_RULES
        load.goes_on()
    lab.set_label("client", MESH, None)
    lab.wait_proved("client")


def _weights(v1: int, v2: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: default}}
spec:
  hosts: [web]
  http:
    - route:
        - {{destination: {{host: web, subset: v1}}, weight: {v1}}}
        - {{destination: {{host: web, subset: v2}}, weight: {v2}}}
"""


def test_weights_moved_under_load_take_hold_and_fail_no_request(lab: Lab) -> None:
    shares = ((50, 50), (0, 100), (90, 10))  # 90 to 10 is in force already
    with RunningLoad(lab.pod("client"), VIP, connections=8, seconds=60) as load:
        for number, (v1, v2) in enumerate(shares):
            load.begin(f"moving-{number}")
            lab.apply_object("split", _weights(v1, v2))
            _Load(load).split(f"{number}")
        result = load.stop()
    assert result["all"]["failed"] == 0, result["all"]
    for number, (_, v2) in enumerate(shares):
        phase = result["phases"][f"{number}"]
        got = phase["pods"].get("web-v2", 0) / phase["ok"]
        assert abs(got - v2 / 100) <= 0.02, (number, phase["pods"])
