"""Which backend is chosen, and why; and what all three have in common."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel import backends, iptables_tools, nft, scratch
from agent.kernel.backends import Backend
from agent.kernel.iptables_tools import Variant
from agent.kernel.refused import KernelRefused
from tests.netns.kernel.iptables import INIT, INIT_PLAN, NODE, NODE_PLAN, OTHER_PLAN, foreign
from tests.netns.kernel.scratch import NODE4, NODE6, Scratch, pod_and_node

ROOT = Path(__file__).parents[3]


@pytest.fixture
def pod() -> Iterator[Scratch]:
    with Scratch() as made:
        made.shell("ip", "link", "set", "lo", "up")
        yield made


@pytest.fixture(params=Backend, ids=lambda backend: backend.value)
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


# ── Chosen ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_nft_is_the_first_choice_and_choosing_makes_nothing(pod: Scratch) -> None:
    assert pod.run(backends.choose) == backends.Choice(Backend.NFTABLES, "the first that works")
    assert pod.shell("nft", "list", "ruleset") == ""
    assert pod.run(iptables_tools.legacy_used, next(iter(iptables_tools._TOOL))) is False


def test_what_holds_rules_of_ours_is_kept(pod: Scratch, backend: Backend) -> None:
    pod.run(backends.install, NODE_PLAN, NODE, backend)
    choice = pod.run(backends.choose)
    assert choice.backend is backend
    assert choice.reason.startswith(f"{backend.value} holds rules of ours already")


def test_rules_of_others_in_iptables_legacy_are_said(pod: Scratch) -> None:
    foreign(pod, Variant.LEGACY)
    choice = pod.run(backends.choose)
    assert choice == backends.Choice(Backend.NFTABLES, "the first that works; 8 rules of others are in iptables-legacy")


def test_what_cannot_be_used_is_passed_over_with_its_reason(
    pod: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "complaint", lambda _: "no such expression")
    choice = pod.run(backends.choose)
    assert choice == backends.Choice(Backend.IPTABLES_NFT, "nft cannot be used: no such expression")
    for verb in ("save", "restore"):
        name = f"iptables-legacy-{verb}"
        (tmp_path / name).symlink_to(f"/usr/sbin/{name}")
    monkeypatch.setattr(iptables_tools, "DIRECTORIES", (str(tmp_path),))
    assert pod.run(backends.choose).backend is Backend.IPTABLES_LEGACY
    monkeypatch.setattr(iptables_tools, "DIRECTORIES", ())
    with pytest.raises(KernelRefused) as refused:
        pod.run(backends.choose)
    for backend in Backend:
        assert f"{backend.value}: " in refused.value.stderr


_CHOOSE = """
from agent.kernel import backends
from agent.kernel.refused import KernelRefused
try:
    print(backends.choose().backend.value)
except KernelRefused as error:
    print(error)
"""


def test_a_missing_capability_is_named(pod: Scratch) -> None:
    def choose_without(capability: str) -> str:
        limited = ("setpriv", f"--bounding-set=-{capability}", "env", f"PYTHONPATH={ROOT}", sys.executable)
        return pod.shell(*limited, "-c", _CHOOSE)

    told = choose_without("net_admin")
    assert all(f"{backend.value}: CAP_NET_ADMIN is missing" in told for backend in Backend)
    assert choose_without("net_raw") == "nft\n"


def test_what_is_asked_for_is_taken_or_refused(pod: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.run(backends.install, NODE_PLAN, NODE, Backend.NFTABLES)
    assert pod.run(backends.choose, Backend.IPTABLES_LEGACY) == backends.Choice(Backend.IPTABLES_LEGACY, "asked for")
    monkeypatch.setattr(nft, "complaint", lambda _: "no such expression")
    with pytest.raises(KernelRefused, match="nft: no such expression"):
        pod.run(backends.choose, Backend.NFTABLES)


def test_a_real_complaint_of_nft_is_told_and_changes_nothing(pod: Scratch) -> None:
    assert "syntax error" in (pod.run(nft.complaint, "table inet x { chain y { nonsense } }") or "")
    assert pod.run(nft.complaint, "table inet x {\n chain y {\n type nat hook output priority 0\n }\n}\n") is None
    assert pod.shell("nft", "list", "ruleset") == ""


# ── What all have in common ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("plan", [NODE_PLAN, INIT_PLAN], ids=["node", "init"])
def test_b41_install_again_and_remove(pod: Scratch, backend: Backend, plan: object) -> None:
    settings = INIT if plan is INIT_PLAN else NODE
    assert pod.run(backends.install, plan, settings, backend).changed
    assert not pod.run(backends.install, plan, settings, backend).changed
    assert pod.run(backends.in_force, plan, backend)
    assert not pod.run(backends.in_force, OTHER_PLAN, backend)
    assert pod.run(backends.counters, backend) != ()
    pod.run(backends.remove, settings, backend)
    pod.run(backends.remove, settings, backend)
    assert pod.run(backends.held) == frozenset() and pod.run(backends.counters, backend) == ()
    assert "::6" not in pod.shell("ip", "-6", "address") and "32764" not in pod.shell("ip", "rule")


def test_without_a_namespace_to_compare_with_what_is_in_force_is_still_known(
    pod: Scratch, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an init container, which may not make one."""
    pod.run(backends.install, NODE_PLAN, NODE, backend)

    def refused() -> None:
        raise PermissionError(1, "unshare: Operation not permitted")

    monkeypatch.setattr(scratch, "leave_for_scratch", refused)
    backends.nft_held.expectation.cache_clear()
    assert not pod.run(backends.install, NODE_PLAN, NODE, backend).changed
    assert pod.run(backends.install, OTHER_PLAN, NODE, backend).changed
    assert pod.run(backends.changes, OTHER_PLAN, backend) == ()
    assert pod.run(backends.changes, NODE_PLAN, backend) != ()


@pytest.mark.parametrize("address", [NODE4, NODE6])
def test_b37_connections_older_than_the_rules_live_on(backend: Backend, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        pod_and_node() as (pod, node),
        node.run(socket.create_server, (address, 8080), family=family) as listener,
        pod.run(socket.create_connection, (address, 8080), 5) as client,
    ):
        server, _ = listener.accept()
        with server:
            server.settimeout(5)
            pod.run(backends.install, NODE_PLAN, NODE, backend)
            pod.run(backends.install, OTHER_PLAN, NODE, backend)
            client.sendall(b"sent")
            assert server.recv(10) == b"sent"
            server.sendall(b"answered")
            assert client.recv(10) == b"answered"
            pod.run(backends.remove, OTHER_PLAN, backend)
            client.sendall(b"on")
            assert server.recv(10) == b"on"
