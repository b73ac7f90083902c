"""The four proofs, against real rules and a listener that reports: what holds, and what is said when it does not."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.handoff.objects import ObjectsServer
from agent.kernel import nft, probe
from agent.kernel.netns import NetnsThreads, enter
from agent.pods import PodRef, Proof, Proofs, ProofStatus
from proxy.api.constants import PROOF_PORT
from tests.netns.kernel.proxy import serving
from tests.netns.kernel.rules import STEER
from tests.netns.kernel.scratch import POD4, POD6, Scratch, on_thread, pod_and_node

OK = Proof(ProofStatus.OK)
ALL_OK = Proofs(OK, OK, OK, OK)


@dataclass
class Scene:
    pod: Scratch
    node: Scratch
    objects: ObjectsServer
    objects_path: Path
    threads: NetnsThreads
    addresses: tuple[str, ...] = (POD4, POD6)

    async def prove(self, timeout_s: float = 0.5, dad_wait_s: float = 5.0) -> Proofs:
        pod = PodRef("u1", "shop", "web", addresses=tuple(ip_address(a) for a in self.addresses))
        with self.pod.open() as netns:
            return await probe.prove(pod, netns, self.threads, self.objects, timeout_s=timeout_s, dad_wait_s=dad_wait_s)


def play(tmp_path: Path, act: Callable[[Scene], Awaitable[None]], *, dad: bool = False, steer: bool = True) -> None:
    """On a thread that is in the node's namespace, as the agent's process is."""

    def on_the_node(pod: Scratch, node: Scratch) -> None:
        enter(node.fd)
        asyncio.run(run(pod, node))

    async def run(pod: Scratch, node: Scratch) -> None:
        objects, threads = ObjectsServer(), NetnsThreads(2)
        await objects.start(tmp_path / "objects.sock")
        try:
            await act(Scene(pod, node, objects, tmp_path / "objects.sock", threads))
        finally:
            await objects.close()
            threads.close()

    with pod_and_node(dad=dad) as (pod, node):
        if steer:
            pod.run(nft.apply, STEER)
        on_thread(lambda: on_the_node(pod, node))


def reasons(proofs: Proofs) -> set[str]:
    assert all(proof.status is ProofStatus.FAILED for _, proof in proofs.items())
    return {proof.reason for _, proof in proofs.items()}


def test_four_proofs_hold(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, objects=scene.objects_path):
            assert await scene.prove() == ALL_OK

    play(tmp_path, act)


def test_addresses_are_found_when_the_source_knows_none(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.addresses = ()
        async with serving(scene.pod, objects=scene.objects_path):
            assert await scene.prove() == ALL_OK

    play(tmp_path, act)


def test_pod_of_one_family_has_the_others_proofs_absent(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.pod.shell("ip", "-6", "addr", "flush", "dev", "eth0", "scope", "global")
        async with serving(scene.pod, objects=scene.objects_path):
            proofs = await scene.prove()
        none = Proof(ProofStatus.ABSENT, "the pod has no IPv6 address")
        assert proofs == Proofs(OK, none, OK, none)

    play(tmp_path, act)


def test_nobody_listening_is_said(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.node, {}, scene.objects_path):
            proofs = await scene.prove()
        assert reasons(proofs) == {
            f"connection refused: nobody listens on {port} in the pod; is the proxy running?" for port in (15001, 15006)
        }

    play(tmp_path, act)


def test_missing_rules_fail_all_four(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, objects=scene.objects_path):
            proofs = await scene.prove()
        for proof in (proofs.out4, proofs.out6):
            assert "an unused address, so the rules did not capture it" in proof.reason
        for proof in (proofs.in4, proofs.in6):
            assert "refused, though 15006 listens: the rules did not capture the connection" in proof.reason
        assert reasons(proofs)

    play(tmp_path, act, steer=False)


def test_one_family_unsteered_is_told_apart(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.pod.run(nft.apply, "insert rule inet headgate output meta nfproto ipv6 return\n")
        async with serving(scene.pod, objects=scene.objects_path):
            proofs = await scene.prove()
        assert (proofs.out4, proofs.in4, proofs.in6) == (OK, OK, OK)
        assert proofs.out6.status is ProofStatus.FAILED and "did not capture" in proofs.out6.reason

    play(tmp_path, act)


def test_application_that_answers_proves_nothing(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, objects=scene.objects_path) as proxy:
            proxy.report = False
            proxy.answer = b"HTTP/1.1 400 Bad\x1b[2J"
            proofs = await scene.prove()
        for reason in reasons(proofs):
            assert "no report of the nonce; somebody else than the proxy was reached" in reason
            assert "HTTP/1.1 400 Bad" in reason and reason.isprintable()

    play(tmp_path, act)


def test_proved_without_a_report_is_no_proof(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, objects=scene.objects_path) as proxy:
            proxy.report = False
            assert reasons(await scene.prove()) == {"the proxy answered, but its report did not arrive on objects.sock"}

    play(tmp_path, act)


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        ({"netns_cookie": 1}, "in another pod's namespace"),
        ({"port": 15006}, "port 15006, sent was"),
        ({"original_destination": ip_address("192.0.2.1")}, "192.0.2.1"),
    ],
)
def test_report_of_something_else_is_no_proof(tmp_path: Path, alter: dict[str, object], said: str) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, objects=scene.objects_path) as proxy:
            proxy.alter = alter
            assert all(said in reason for reason in reasons(await scene.prove()))

    play(tmp_path, act)


def test_swapped_listeners_are_no_proof(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, {15001: "inbound", 15006: "outbound"}, scene.objects_path):
            for reason in reasons(await scene.prove()):
                assert reason.startswith("the proxy saw ")

    play(tmp_path, act)


def test_silent_listener_ends_within_the_bound(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, objects=scene.objects_path) as proxy:
            proxy.report = False
            proxy.answer = b""
            began = asyncio.get_running_loop().time()
            proofs = await scene.prove(timeout_s=0.3)
            assert asyncio.get_running_loop().time() - began < 2
            for reason in reasons(proofs):
                assert reason.startswith("nothing was answered at ") and "within 0.3 s" in reason
                assert reason.endswith("or the pod's object, or somebody else listens there")

    play(tmp_path, act)


def test_tentative_address_is_waited_for(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, objects=scene.objects_path):
            early = await scene.prove(dad_wait_s=0)
            assert "still tentative" in early.out6.reason and "still tentative" in early.in6.reason
            assert (early.out4, early.in4) == (OK, OK)
            assert await scene.prove() == ALL_OK

    play(tmp_path, act, dad=True)


def test_duplicate_address_is_said(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.node.shell("ip", "addr", "add", f"{POD6}/64", "dev", "veth0", "nodad")
        scene.pod.shell("ip", "addr", "del", f"{POD6}/64", "dev", "eth0")
        scene.pod.shell("ip", "addr", "add", f"{POD6}/64", "dev", "eth0")
        async with serving(scene.pod, objects=scene.objects_path):
            proofs = await scene.prove()
        assert f"{POD6} is a duplicate: another host answers for it" in proofs.out6.reason

    play(tmp_path, act, dad=True)


def test_pod_with_a_host_route_is_proved_by_its_default_route(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        _host_routes(scene)
        async with serving(scene.pod, objects=scene.objects_path):
            proofs = await scene.prove()
            assert proofs.out4.status is ProofStatus.ABSENT and "no default route" in proofs.out4.reason
            scene.pod.shell("ip", "route", "add", "default", "dev", "eth0")
            assert await scene.prove() == ALL_OK

    play(tmp_path, act)


def _host_routes(scene: Scene) -> None:
    """As Calico's and AWS's pods: a /32 and a route to the node."""
    scene.pod.shell("ip", "addr", "del", f"{POD4}/24", "dev", "eth0")
    scene.pod.shell("ip", "addr", "add", f"{POD4}/32", "dev", "eth0")
    scene.pod.shell("ip", "route", "add", "10.99.0.9", "dev", "eth0")


def test_foreign_proxy_is_proved_by_conntrack(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod):
            assert await scene.prove() == ALL_OK

    play(tmp_path, act)


def test_without_a_reporting_proxy_conntrack_shows_what_was_not_steered(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        async with serving(scene.pod, {PROOF_PORT: "inbound"}):
            proofs = await scene.prove()
        for proof in (proofs.in4, proofs.in6):
            assert proof.status is ProofStatus.FAILED
            assert "conntrack in the pod knows no flow" in proof.reason or "redirected not at all" in proof.reason

    play(tmp_path, act, steer=False)
