"""Other people's rulesets, explained packet by packet: what a person expects, what is said, and what the kernel does.

Written from the peers' documentation (tests/netns/explain/peers), loaded as each of them loads it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.explain.interpret import explain
from agent.explain.outcome import Explanation
from agent.explain.tables import Ruleset
from agent.kernel.surroundings import KernelSurroundings
from agent.ruleset import whole
from tests.netns.explain.agreement import disagreement
from tests.netns.explain.oracle import Scene
from tests.netns.explain.peers import LINKS, LISTENERS, Case, Peer, is_as_expected, told
from tests.netns.explain.peers.everyone import PEERS

FEWEST_PACKETS = 20
POLICIES = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n"
LOADED = [  # legacy last: its tables stay, and are cleared after each case that follows
    *((peer, "") for peer in PEERS if peer.files[0].endswith(".nft")),
    *((peer, variant) for variant in ("-nft", "-legacy") for peer in PEERS if not peer.files[0].endswith(".nft")),
]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A pod that is a node, too: bridges to its own pods and containers."""
    with Scene(links=LINKS, listeners=LISTENERS) as made:
        yield made


@contextmanager
def loaded(scene: Scene, peer: Peer, variant: str) -> Iterator[None]:
    """`variant` of iptables: `-nft` or `-legacy`."""
    try:
        for tool, text in peer.texts:
            if tool == "nft":
                scene.nft(text)
            else:
                scene.restore(f"{tool}{variant}", text)
        for route in peer.routes:
            scene.pod.shell("ip", *route.split())
        yield
    finally:
        scene.clear()
        if variant == "-legacy":
            for tool in ("iptables", "ip6tables"):  # clearing takes the rules and leaves the policies
                scene.restore(f"{tool}-legacy", POLICIES)
        for route in peer.routes:
            scene.pod.shell("sh", "-c", f"ip {route.replace(' add ', ' del ', 1)} 2>&1 || true")


def explained(cases: tuple[Case, ...]) -> tuple[Ruleset, list[Explanation]]:
    """In the namespace, on one thread."""
    surroundings = KernelSurroundings()

    def ask(ruleset: Ruleset) -> tuple[Ruleset, list[Explanation]]:
        return ruleset, [explain(ruleset, case.packet, surroundings) for case in cases]

    return whole.settled(ask)


@pytest.mark.parametrize(("peer", "variant"), LOADED, ids=[f"{peer.name}{variant}" for peer, variant in LOADED])
def test_the_expected_the_explained_and_the_kernels_outcome_are_one(scene: Scene, peer: Peer, variant: str) -> None:
    assert len(peer.cases) >= FEWEST_PACKETS
    wrong = []
    with loaded(scene, peer, variant):
        ruleset, explanations = scene.pod.run(explained, peer.cases)
        for case, explanation in zip(peer.cases, explanations, strict=True):
            if not is_as_expected(case, explanation):
                wrong.append(f"{case.what}: expected {case.becomes}, explained as {told(explanation)}")
            seen = scene.send(case.packet)
            if different := disagreement(explanation, seen, case.packet):
                wrong.append(f"{case.what}: {different}")
    assert not wrong, "\n".join(wrong)
    assert ruleset.unread == ()


# Two of a kind in one namespace: a container's resolver beside a sidecar, a CNI's port maps beside kube-proxy, a mesh
# that was changed for another, a user's firewall on a node.
TOGETHER = [
    (("istio-redirect", "-nft"), ("docker-resolver", "-legacy")),
    (("istio-native", ""), ("docker-resolver", "-nft")),
    (("kube-proxy", "-nft"), ("portmap", "-nft"), ("firewalld", "")),
    (("kube-proxy-native", ""), ("portmap", "-legacy"), ("docker", "-legacy")),
    (("linkerd", "-legacy"), ("ambient", "-nft")),
    (("kuma", "-nft"), ("ufw", "-legacy")),
    (("docker", "-nft"), ("ufw", "-nft")),
]


@pytest.mark.parametrize("parts", TOGETHER, ids=lambda parts: "+".join(f"{name}{variant}" for name, variant in parts))
def test_together_the_explained_and_the_kernels_outcome_are_one(
    scene: Scene, parts: tuple[tuple[str, str], ...]
) -> None:
    peers = {peer.name: peer for peer in PEERS}
    cases = tuple(case for name, _ in parts for case in peers[name].cases)
    wrong = []
    with ExitStack() as stack:
        for name, variant in parts:
            stack.enter_context(loaded(scene, peers[name], variant))
        _, explanations = scene.pod.run(explained, cases)
        for case, explanation in zip(cases, explanations, strict=True):
            seen = scene.send(case.packet)
            if different := disagreement(explanation, seen, case.packet):
                wrong.append(f"{case.what}: {different}")
    assert not wrong, "\n".join(wrong)
