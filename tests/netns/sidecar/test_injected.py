"""A manifest, injected, and its containers run as they stand in it: real rules, real sidecar, real traffic."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from agent.inject.manifests import Surroundings, inject, read
from agent.inject.template import INIT, PROXY, Template
from agent.lab import processes, state
from agent.lab.admin import AdminError, get_status
from agent.lab.node import Lab, LabPod, headgate
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.cases.application import Application, ask
from tests.netns.cases.wire import V4, V6, Family, dial, own
from tests.netns.sidecar.kubelet import Container, Kubelet
from tests.netns.sidecar.sidecars import PASSTHROUGH, Counts, Kind, Running, Sidecar, wait_for

APPLICATION_PORT, SERVER_PORT, DIRECT_PORT = 8080, 8000, 5432
MANIFEST = """\
apiVersion: v1
kind: Pod
metadata:
  name: pod
  annotations:
    traffic.sidecar.istio.io/excludeOutboundPorts: "5432"  # the database speaks first
spec:
  containers:
  - name: app
    readinessProbe:
      httpGet: {path: /ready, port: 8080}
"""
POLICY = """\
apiVersion: v1
kind: Service
metadata: {name: peer, namespace: default}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd96::10"]
  ipFamilies: [IPv4, IPv6]
  ports: [{name: tcp, port: 80, targetPort: 8000}]
"""
ENDPOINTS = """\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: "peer-%d", namespace: default, labels: {kubernetes.io/service-name: peer}}
addressType: IPv%d
ports: [{name: tcp, port: 8000}]
endpoints: [{addresses: ["%s"], conditions: {ready: true}}]
"""


@dataclass(frozen=True, slots=True)
class Injected:
    """The pod, and another one, from which kubelet and others call."""

    pod: LabPod
    peer: LabPod
    sidecar: Sidecar


@pytest.fixture(scope="module", params=[True, False], ids=["native", "ordinary"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def place(native: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injected]:
    """The pod with its init container done, and its sidecar started."""
    directory = tmp_path_factory.mktemp("injected")
    done = inject(read(MANIFEST), Template(native=native, config_map="policy"), Surroundings())
    (manifest,) = read(done.text).values
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab, ExitStack() as stack:
        pod, peer = lab.pod("pod"), lab.pod("peer")
        endpoints = (ENDPOINTS % (family.version, family.version, family.of(peer)) for family in (V4, V6))
        (directory / "policy.yaml").write_text("".join((POLICY, *endpoints)))
        kubelet = Kubelet(pod, manifest["metadata"], manifest["spec"], directory)
        stack.callback(pod.run, [*headgate(), "init", "--cleanup"])
        pod.run(kubelet.command(kubelet.container(INIT)))
        sidecar = Sidecar(lab, pod, Kind.PLAIN, directory)
        running = stack.enter_context(_started(kubelet, sidecar))
        place = Injected(pod, peer, sidecar)
        probe = kubelet.container(PROXY)["startupProbe"]
        wait_for("the startup probe to succeed", lambda: probed(place, probe, V4), running.explain)
        yield place


@contextmanager
def _started(kubelet: Kubelet, sidecar: Sidecar) -> Iterator[Running]:
    process = processes.start(
        kubelet.pod.netns,
        kubelet.command(kubelet.container(PROXY)),
        log=sidecar.log_path,
        pid_file=sidecar.lab.paths.pids / sidecar.name,
        directory=sidecar.directory,
        environment={state.MARKER: sidecar.lab.paths.name},
    )
    running = Running(sidecar, process)
    try:
        yield running
    finally:
        running.kill()


def probed(place: Injected, probe: Container, family: Family) -> bool:
    """As kubelet does, from outside the pod."""
    asked = probe["httpGet"]
    try:
        return get_status(lambda: place.peer.netns.connect(family.of(place.pod), asked["port"]), asked["path"]) == 200
    except AdminError:
        return False


@contextmanager
def passing(place: Injected) -> Iterator[list[Counts]]:
    """What goes through the sidecar meanwhile: in the list, afterwards."""
    before, found = place.sidecar.counts(), []
    yield found
    found.append(place.sidecar.counts() - before)


# ── Kubelet ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_sidecars_own_probe_is_answered_beside_the_rules(place: Injected, family: Family) -> None:
    with passing(place) as counts:
        for _ in range(3):
            assert probed(place, {"httpGet": {"path": "/healthz/ready", "port": 15021}}, family)
    assert counts == [Counts(0, 0)]


def test_the_applications_probe_goes_through_the_sidecar_and_succeeds(place: Injected, family: Family) -> None:
    (container,) = next(iter(read(MANIFEST).values))["spec"]["containers"]
    with passing(place) as counts:
        assert not probed(place, container["readinessProbe"], family)
        with Application(place.pod.netns, family.of(place.pod), APPLICATION_PORT):
            assert probed(place, container["readinessProbe"], family)
    assert counts == [Counts(0, 2)]


# ── Traffic ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_calls_of_the_application_come_through_the_sidecar(place: Injected, family: Family) -> None:
    address = family.of(place.pod)
    with (
        passing(place) as counts,
        Application(place.pod.netns, address, APPLICATION_PORT),
        dial(place.peer.netns, address, APPLICATION_PORT) as client,
    ):
        assert ask(client, http=True).caller[0] == PASSTHROUGH[family.version]
    assert counts == [Counts(0, 1)]


def test_what_the_application_calls_goes_through_the_sidecar(place: Injected, family: Family) -> None:
    address = family.of(place.peer)
    with (
        passing(place) as counts,
        Application(place.peer.netns, address, SERVER_PORT),
        dial(place.pod.netns, address, SERVER_PORT) as client,
    ):
        assert ask(client, http=True).caller != own(client)
    assert counts == [Counts(1, 0)]


def test_the_annotation_of_another_mesh_takes_a_port_out(place: Injected, family: Family) -> None:
    address = family.of(place.peer)
    with (
        passing(place) as counts,
        Application(place.peer.netns, address, DIRECT_PORT),
        dial(place.pod.netns, address, DIRECT_PORT) as client,
    ):
        assert ask(client, http=False).caller == own(client)
    assert counts == [Counts(0, 0)]


def test_the_config_maps_objects_are_known(place: Injected, family: Family) -> None:
    """Nobody has the Service's address; only who has read it knows where it leads."""
    address = family.of(place.peer)
    with Application(place.peer.netns, address, SERVER_PORT), dial(place.pod.netns, family.vip, 80) as client:
        assert ask(client, http=True).called == (address, SERVER_PORT)
