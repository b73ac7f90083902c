"""B31: an application that has a port of the proxy's. Its pod is refused before any rule, told why, and works on."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest

from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, TUNNEL_PORT
from tests.netns.cases.wire import V4, V6, Family, accept, dial, listen, own, peer, read_all

TAKEN: Final = (OUTBOUND_PORT, INBOUND_PORT, TUNNEL_PORT)

APPLICATION: Final = """\
import json, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.create_server((address, port), family=family) as listener:
    print("ready", flush=True)
    while True:
        caller, name = listener.accept()
        with caller:
            caller.sendall(json.dumps(name[:2]).encode())
"""


@dataclass(frozen=True, slots=True)
class Taken:
    lab: Lab
    pids: dict[str, int]
    before: dict[str, list[str]]


def _name(port: int, family: Family) -> str:
    return f"taken-{port}-v{family.version}"


@pytest.fixture(scope="module")
def taken() -> Iterator[Taken]:
    """A pod for each port and family, whose application listens there and on nothing else; a pod without such a
    conflict; and `stranger`, which is not in the mesh. Agent and proxy run, and every pod's life has been decided."""
    names = {_name(port, family): (port, family) for port in TAKEN for family in (V4, V6)}
    left_out = PodSpec("stranger", labels=(("headgate.io/mesh", "disabled"),))
    with Lab(LabSpec((left_out, PodSpec("healthy"), *(PodSpec(name) for name in names)))) as lab, ExitStack() as stack:
        pids = {name: _start(lab.pod(name), *where, stack) for name, where in names.items()}
        before = {name: _held(lab.pod(name)) for name in names}
        lab.start_proxy()
        lab.start_agent()
        lab.wait_proved("healthy")
        lab.wait("the others to be decided", lambda: all(_shown(lab, name)["state"] == "failed" for name in names))
        yield Taken(lab, pids, before)


def _start(pod: LabPod, port: int, family: Family, stack: ExitStack) -> int:
    command = [sys.executable, "-c", APPLICATION, family.any, str(port)]
    process = stack.enter_context(pod.popen(command, stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process.pid


def _held(pod: LabPod) -> list[str]:
    return [
        pod.run(command).stdout for command in (["nft", "list", "ruleset"], ["ip", "-4", "rule"], ["ip", "-6", "rule"])
    ]


def _shown(lab: Lab, name: str) -> dict[str, Any]:
    (shown,) = (pod for pod in lab.agent_pods() if pod["name"] == name)
    return shown


@pytest.mark.parametrize("port", TAKEN)
def test_b31_the_agent_reports_the_port_and_the_process(taken: Taken, port: int, family: Family) -> None:
    name = _name(port, family)
    shown = _shown(taken.lab, name)
    assert shown["state"] == "failed"
    assert f"port {port} is taken by process {taken.pids[name]} (" in shown["reason"]
    assert "move the application to another port" in shown["reason"]


@pytest.mark.parametrize("port", TAKEN)
def test_b31_nothing_was_installed(taken: Taken, port: int, family: Family) -> None:
    name = _name(port, family)
    assert _held(taken.lab.pod(name)) == taken.before[name]


@pytest.mark.parametrize("port", TAKEN)
def test_b31_the_application_works_on_unsteered(taken: Taken, port: int, family: Family) -> None:
    pod, stranger = taken.lab.pod(_name(port, family)), taken.lab.pod("stranger")
    with dial(stranger.netns, family.of(pod), port) as client:
        assert tuple(json.loads(read_all(client))) == own(client)
    with (
        listen(stranger.netns, family.of(stranger), 80) as server,
        dial(pod.netns, family.of(stranger), 80) as client,
        accept(server) as served,
    ):
        assert peer(served) == own(client)


@pytest.mark.parametrize("port", TAKEN)
def test_b31_a_pod_of_the_mesh_reaches_the_application(taken: Taken, port: int, family: Family) -> None:
    """Only a pod's own proxy ports are the proxy's: in another pod the number means nothing."""
    pod, healthy = taken.lab.pod(_name(port, family)), taken.lab.pod("healthy")
    with dial(healthy.netns, family.of(pod), port) as client:
        address, _ = json.loads(read_all(client))
    assert address == family.of(healthy)
