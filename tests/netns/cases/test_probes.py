"""Packet-path cases of what the node itself opens, kubelet's probes before all: the node's rules and the pod's."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent.kernel import node_rules
from agent.kernel.nft import list_counters
from agent.kernel.node_rules import Held
from agent.lab.namespaces import Netns
from agent.lab.node import Lab
from agent.lab.spec import NODE_ADDRESS4, NODE_ADDRESS6, LabSpec, PodSpec
from agent.plan import ProbeSettings
from agent.plan.node_rules import TABLE
from agent.plan.steering import Steering, UdpPolicy
from proxy.api.constants import PROOF_PORT
from tests.netns.cases.conftest import Place, Ruled, Steered
from tests.netns.cases.setups import PROBED_SETUPS, Setup
from tests.netns.cases.wire import (
    APPLICATION_UID,
    Family,
    accept,
    assert_talk,
    dial,
    dial_as,
    listen,
    own,
    peer,
)

PROBES = ProbeSettings()
APPLICATION_PORT = 8080
HOST_PORT = 8081
NOTHING = Held(there=False, whole=False, pods={})


@pytest.fixture(scope="module", params=PROBED_SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


@pytest.fixture(scope="module")
def lab(setup: Setup) -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab:
        pod = lab.pod("pod")
        assert pod.address4 is not None
        assert pod.address6 is not None
        lab.node.call(node_rules.put, PROBES, NOTHING, {pod.address4: "u-1", pod.address6: "u-1"})
        yield lab


@pytest.fixture(scope="module")
def place(setup: Setup, lab: Lab) -> Place:
    return Place(setup, lab.pod("pod"), lab.pod("peer"))


@pytest.fixture(scope="module")
def ruled(place: Place) -> Iterator[Ruled]:
    with place.setup.applied(place.pod, Steering(udp=UdpPolicy.DENY)) as plan:
        yield Ruled(place, plan)


@pytest.fixture
def node(lab: Lab) -> Netns:
    """Where kubelet runs."""
    return lab.node


def probes_address(family: Family) -> str:
    return str(PROBES.source4 if family.version == 4 else PROBES.source6)


def nodes_address(family: Family) -> str:
    return str(NODE_ADDRESS4 if family.version == 4 else NODE_ADDRESS6)


def packets(node: Netns, rule: str, family: Family) -> int:
    counted = {counter.rule_id: counter.packets for counter in node.call(list_counters, TABLE)}
    return counted[f"{rule}{family.version}"]


@contextmanager
def translated(node: Netns, hook: str, family: Family, to: str) -> Iterator[None]:
    """As portmap and kube-proxy do it: what asks for HOST_PORT of that address is led to the pod."""
    ip = "ip" if family.version == 4 else "ip6"
    pod = f"[{to}]" if family.version == 6 else to
    node.run(
        ["nft", "-f", "-"],
        stdin=f"table {ip} portmap {{ chain c {{ type nat hook {hook} priority -100;\n"
        f"tcp dport {HOST_PORT} dnat to {pod}:{APPLICATION_PORT}\n}}\n}}\n",
    )
    try:
        yield
    finally:
        node.run(["nft", "delete", "table", ip, "portmap"])


# ── A probe ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_b27_what_the_node_opens_reaches_the_application_from_the_address_of_probes(
    steered: Steered, node: Netns
) -> None:
    target = (steered.pod_address, APPLICATION_PORT)
    with (
        listen(steered.pod.netns, *target) as application,
        dial(node, *target) as kubelet,
        accept(application) as served,
    ):
        assert peer(served)[0] == probes_address(steered.family)
        assert peer(kubelet) == target
        assert_talk(kubelet, served)
        steered.assert_nothing_captured()


def test_b27_a_probe_goes_on_when_the_pod_s_conntrack_has_forgotten_it(steered: Steered, node: Netns) -> None:
    target = (steered.pod_address, APPLICATION_PORT)
    with (
        listen(steered.pod.netns, *target) as application,
        dial(node, *target) as kubelet,
        accept(application) as served,
    ):
        steered.pod.run(["conntrack", "-F"])
        served.sendall(b"first")  # the answer itself is what conntrack does not know
        assert kubelet.recv(5) == b"first"
        steered.pod.run(["conntrack", "-F"])
        assert_talk(kubelet, served)


def test_b27_the_same_address_over_udp_is_anybody(steered: Steered, node: Netns) -> None:
    source = probes_address(steered.family)
    with owning(node, source):
        with (
            udp_socket(steered.pod.netns, steered.pod_address, APPLICATION_PORT),
            udp_socket(node, source, 0) as kubelet,
        ):
            kubelet.connect((steered.pod_address, APPLICATION_PORT))
            assert is_refused(kubelet)
        with (
            listen(steered.pod.netns, steered.pod_address, APPLICATION_PORT) as application,
            dial(node, steered.pod_address, APPLICATION_PORT, source=source),
            accept(application) as served,
        ):
            assert peer(served)[0] == source


def test_b27_a_cnis_masquerade_comes_behind(steered: Steered, node: Netns) -> None:
    """Of all chains that translate the first decides; others' stand at srcnat (100)."""
    target, family = (steered.pod_address, APPLICATION_PORT), "ip" if steered.family.version == 4 else "ip6"
    node.run(
        ["nft", "-f", "-"],
        stdin=f"table {family} cni {{ chain c {{ type nat hook postrouting priority 100\nmasquerade\n}}\n}}\n",
    )
    try:
        with (
            listen(steered.pod.netns, *target) as application,
            dial(node, *target),
            accept(application) as served,
        ):
            assert peer(served)[0] == probes_address(steered.family)
    finally:
        node.run(["nft", "delete", "table", family, "cni"])


# ── What is none ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_b28_hostport_traffic_from_outside_is_no_probe(steered: Steered, node: Netns) -> None:
    """istio #53176: it is forwarded, and no socket of the node's sends it."""
    with (
        translated(node, "prerouting", steered.family, steered.pod_address),
        dial(steered.peer.netns, nodes_address(steered.family), HOST_PORT) as client,
        accept(steered.inbound) as met,
    ):
        assert peer(met) == own(client)
        assert_talk(client, met)


def test_b28_what_the_node_asks_of_a_service_is_no_probe(steered: Steered, node: Netns) -> None:
    """kubelet probes a pod's address; what was addressed to a Service or a host port comes from somebody else."""
    with (
        translated(node, "output", steered.family, steered.pod_address),
        dial(node, steered.peer_address, HOST_PORT) as client,
        accept(steered.inbound) as met,
    ):
        assert peer(met)[0] == nodes_address(steered.family)
        assert_talk(client, met)


def test_b28_what_another_user_than_root_opens_on_the_node_is_no_probe(steered: Steered, node: Netns) -> None:
    target = (steered.pod_address, APPLICATION_PORT)
    with dial_as(APPLICATION_UID, node, *target) as client:
        steered.assert_captured_inbound(client, target)


def test_b28_the_agents_proof_is_no_probe(steered: Steered, node: Netns) -> None:
    target = (steered.pod_address, PROOF_PORT)
    with dial(node, *target) as client:
        steered.assert_captured_inbound(client, target)


def test_b28_a_neighbour_is_no_probe(steered: Steered) -> None:
    target = (steered.pod_address, APPLICATION_PORT)
    with dial(steered.peer.netns, *target) as client:
        steered.assert_captured_inbound(client, target)


def test_b28_who_sends_from_the_address_of_probes_through_the_node_is_dropped(steered: Steered, node: Netns) -> None:
    source, family = probes_address(steered.family), steered.family
    before = packets(node, "node-spoofed", family)
    with owning(steered.peer.netns, source), by_way_of_the_node(steered), pytest.raises(TimeoutError):
        _dial_within(0.5, steered.peer.netns, steered.pod_address, source)
    assert packets(node, "node-spoofed", family) > before
    steered.assert_nothing_captured()


# ── Pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def owning(where: Netns, address: str) -> Iterator[None]:
    whole = f"{address}/{128 if ':' in address else 32}"
    device = "br0" if where.run(["ip", "link", "show", "br0"], check=False).returncode == 0 else "eth0"
    words = ["nodad"] if ":" in address else []
    where.run(["ip", "addr", "add", whole, "dev", device, *words])
    try:
        yield
    finally:
        where.run(["ip", "addr", "del", whole, "dev", device])


@contextmanager
def by_way_of_the_node(steered: Steered) -> Iterator[None]:
    """As where each pod has a link of its own to the node (Calico, GKE, EKS)."""
    bits = 32 if steered.family.version == 4 else 128
    route = [f"{steered.pod_address}/{bits}", "via", nodes_address(steered.family), "dev", "eth0"]
    steered.peer.run(["ip", "route", "add", *route])
    try:
        yield
    finally:
        steered.peer.run(["ip", "route", "del", *route])


def _dial_within(timeout_s: float, where: Netns, address: str, source: str) -> None:
    make: Callable[..., socket.socket] = socket.create_connection
    where.call(make, (address, APPLICATION_PORT), timeout_s, (source, 0)).close()


def is_refused(sock: socket.socket) -> bool:
    """Asked five times: one such answer a second is let out to a neighbour (net.ipv6.icmp.ratelimit)."""
    sock.settimeout(1.2)
    for _ in range(5):
        try:
            sock.send(b"?")
            sock.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            continue
    return False


@contextmanager
def udp_socket(where: Netns, address: str, port: int) -> Iterator[socket.socket]:
    with where.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind((address, port))
        yield sock
