"""An install whose process is killed around the rules themselves; within iptables' own: test_iptables_interrupted."""

import os
import signal
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from agent.kernel import backends, iptables, nft
from agent.kernel.backends import Backend
from agent.kernel.iptables_tools import Variant
from agent.ruleset.clean import removal
from agent.ruleset.read import inventory
from agent.ruleset.remove import remove
from tests.netns.kernel.iptables import INIT, INIT_PLAN, NODE, NODE_PLAN, foreign, holdings
from tests.netns.kernel.scratch import Scratch

PLANS = {"node": (NODE_PLAN, NODE), "init": (INIT_PLAN, INIT)}
APPLIES: dict[Backend, tuple[ModuleType, str]] = {
    Backend.NFTABLES: (nft, "apply"),
    Backend.IPTABLES_NFT: (iptables, "apply"),
    Backend.IPTABLES_LEGACY: (iptables, "apply"),
}


@pytest.fixture(params=Backend, ids=lambda backend: backend.value)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


@pytest.fixture(params=PLANS)
def mode(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def pod() -> Iterator[Scratch]:
    """With rules of others, of every tool."""
    with Scratch() as made:
        made.shell("ip", "link", "set", "lo", "up")
        for variant in Variant:
            foreign(made, variant)
        yield made


def killed_before(pod: Scratch, module: ModuleType, name: str, call: Callable[[], object]) -> None:
    """`call` in a process that is killed when it comes to `module.name`."""

    def fork_and_call() -> int:
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1]
        try:  # pragma: no cover - another process
            setattr(module, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            call()
        finally:
            os._exit(1)

    status = pod.run(fork_and_call)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status


def all_holdings(pod: Scratch) -> list[str]:
    return [text for variant in Variant for text in holdings(pod, variant)]


def test_b44_killed_before_the_rules_the_next_install_is_whole_and_everything_can_be_removed(
    pod: Scratch, backend: Backend, mode: str
) -> None:
    plan, settings = PLANS[mode]
    before = all_holdings(pod)
    killed_before(pod, *APPLIES[backend], lambda: backends.install(plan, settings, backend))
    assert pod.run(backends.held) == frozenset()
    assert pod.run(backends.install, plan, settings, backend).changed
    assert pod.run(backends.in_force, plan, backend)
    pod.run(backends.remove, settings, backend)
    assert all_holdings(pod) == before


def test_b44_what_is_left_without_rules_is_cleaned_too(pod: Scratch, backend: Backend, mode: str) -> None:
    plan, settings = PLANS[mode]
    killed_before(pod, *APPLIES[backend], lambda: backends.install(plan, settings, backend))
    pod.run(lambda: remove(removal(inventory())))
    assert "32764" not in pod.shell("ip", "rule") and "32764" not in pod.shell("ip", "-6", "rule")
    found = pod.run(lambda: removal(inventory()))
    assert found.words == () and all("::6" in words for words in found.kept)  # Istio's rules are here, too


@pytest.mark.parametrize(
    ("was", "backend"),
    [(was, becomes) for was in Backend for becomes in Backend if was is not becomes],
    ids=lambda one: one.value,
)
def test_b44_killed_before_the_other_backends_rules_go_both_stand_and_the_next_install_leaves_one(
    pod: Scratch, was: Backend, backend: Backend
) -> None:
    before = all_holdings(pod)
    pod.run(backends.install, NODE_PLAN, NODE, was)
    killed_before(pod, backends, "remove_rules", lambda: backends.install(NODE_PLAN, NODE, backend))
    assert pod.run(backends.held) == {was, backend}
    assert pod.run(backends.install, NODE_PLAN, NODE, backend).changed
    assert pod.run(backends.held) == {backend} and pod.run(backends.in_force, NODE_PLAN, backend)
    pod.run(backends.remove, NODE, backend)
    assert all_holdings(pod) == before
