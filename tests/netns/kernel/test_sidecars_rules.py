"""Rules of `headgate init` are found for what they are, whatever they are made of, and no agent's hand takes them."""

from pathlib import Path

import pytest

from agent.kernel import backends
from agent.kernel.backends import Backend
from agent.plan import PlanSettings, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners
from agent.pods.sandbox import Sandbox
from agent.reconcile.life import Held
from agent.supervisor import inside
from agent.supervisor.effects import Rules
from agent.supervisor.inside_iptables import IptablesRules
from agent.supervisor.left_behind import left_behind
from tests.netns.kernel.scratch import Scratch

NODE = PlanSettings()
SIDECAR = PlanSettings(owners=Owners(uids=Ranges.of(1337)))
TRANSPARENT = PlanSettings(owners=Owners(uids=Ranges.of(1337)), passthrough=False)
_PROC = (Path("/proc"),)
RULES: dict[str, Rules] = {"nft": inside, "iptables": IptablesRules(Backend.IPTABLES_NFT)}


def everything(pod: Scratch) -> str:
    words = ("nft -s list ruleset", "ip rule", "ip route show table all", "ip -6 rule", "ip -6 route show table all")
    return pod.shell("sh", "-c", "; ".join(words))


@pytest.mark.parametrize("by", [Backend.NFTABLES, Backend.IPTABLES_NFT], ids=["init by nft", "init by iptables"])
@pytest.mark.parametrize("agent", list(RULES))
@pytest.mark.parametrize("settings", [SIDECAR, TRANSPARENT], ids=["passthrough", "transparent"])
def test_a_life_that_ends_before_its_first_look_takes_nothing_of_a_sidecars(
    by: Backend, agent: str, settings: PlanSettings
) -> None:
    rules, plan = RULES[agent], plan_of(Steering(), NODE)
    with Scratch() as pod:
        pod.shell("ip", "link", "set", "lo", "up")
        pod.run(backends.install, plan_of(Steering(), settings), settings, by)
        before = everything(pod)
        assert pod.run(rules.inspect, NODE, *_PROC).held is Held.SIDECARS
        assert left_behind([Sandbox(pod.path, pod.identity)]) == frozenset()
        pod.run(rules.drain, plan)
        pod.run(rules.remove, plan)
        assert everything(pod) == before


@pytest.mark.parametrize("by", [Backend.NFTABLES, Backend.IPTABLES_NFT], ids=["nft", "iptables"])
def test_rules_of_a_nodes_agent_are_found_and_taken(by: Backend) -> None:
    plan = plan_of(Steering(), NODE)
    with Scratch() as pod:
        pod.shell("ip", "link", "set", "lo", "up")
        pod.run(backends.install, plan, NODE, by)
        assert left_behind([Sandbox(pod.path, pod.identity)]) == {pod.identity}
        rules = RULES["nft" if by is Backend.NFTABLES else "iptables"]
        assert pod.run(rules.inspect, NODE, *_PROC).held is Held.RULES
        pod.run(rules.drain, plan)
        pod.run(rules.remove, plan)
        assert "eadgate" not in everything(pod)
        assert left_behind([Sandbox(pod.path, pod.identity)]) == frozenset()


def test_a_namespace_that_has_ended_or_is_another_by_now_is_nobodys() -> None:
    with Scratch() as pod, Scratch() as other:
        gone = Sandbox("/proc/1/ns/no-such", pod.identity)
        assert left_behind([gone, Sandbox(pod.path, other.identity)]) == frozenset()
