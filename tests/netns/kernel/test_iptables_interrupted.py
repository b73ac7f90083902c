"""Changes by iptables that are refused in the middle, or whose process is killed there."""

import ctypes
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kernel import backends, iptables, iptables_tools
from agent.kernel.backends import Backend
from agent.kernel.iptables_tools import Variant
from agent.kernel.refused import KernelRefused
from agent.plan import IPFamily
from agent.plan.drift import Form
from tests.netns.kernel.iptables import (
    INIT,
    INIT_PLAN,
    NODE,
    NODE_PLAN,
    OTHER_PLAN,
    foreign,
    holdings,
    reaches,
    restore,
    saves,
)
from tests.netns.kernel.scratch import NODE4, NODE6, Scratch, pod_and_node

BACKEND = {Variant.NFT: Backend.IPTABLES_NFT, Variant.LEGACY: Backend.IPTABLES_LEGACY}
STEPS = (
    "guard iptables",
    "guard ip6tables",
    "return path",
    "rules iptables",
    "rules ip6tables",
    "compare",
    "unguard iptables",
    "unguard ip6tables",
)


@pytest.fixture(params=Variant, ids=lambda variant: f"iptables-{variant.value}")
def variant(request: pytest.FixtureRequest) -> Variant:
    chosen: Variant = request.param
    return chosen


def killed_at(pod: Scratch, variant: Variant, plan: object, step: str) -> None:
    """The change is made by a process that is killed just before that step."""

    def fork_and_apply() -> int:
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1]
        try:  # pragma: no cover - another process
            iptables.apply(variant, plan, Form.STEERING, frozenset, lambda name: _kill_self() if name == step else None)
        finally:
            os._exit(1)

    status = pod.run(fork_and_apply)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrived(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0.1)[0])


@pytest.mark.parametrize("step", STEPS)
def test_b44_killed_at_any_step_it_is_closed_and_the_next_run_heals(variant: Variant, step: str) -> None:
    with pod_and_node() as (pod, node):
        foreign(pod, variant)
        before = holdings(pod, variant)
        killed_at(pod, variant, NODE_PLAN, step)
        in_clear = [reaches(pod, node, address, arrived) for address in (NODE4, NODE6)]
        begun = STEPS.index(step)  # the guard of a family is what the first steps put up
        assert in_clear == [begun < 1, begun < 2]
        if begun:
            assert pod.run(backends.held) == {BACKEND[variant]}
            assert pod.run(backends.changes, NODE_PLAN, BACKEND[variant]) != ()
        pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant])
        assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])
        assert "GUARD" not in "".join(saves(pod, variant))
        pod.run(backends.remove, NODE_PLAN, BACKEND[variant])
        assert holdings(pod, variant) == before


@pytest.mark.parametrize("step", ["rules iptables", "rules ip6tables", "unguard iptables"])
def test_b44_killed_while_one_plan_follows_another_neither_lets_anything_pass(variant: Variant, step: str) -> None:
    with pod_and_node() as (pod, node):
        pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant])
        killed_at(pod, variant, OTHER_PLAN, step)
        assert not any(reaches(pod, node, address, arrived) for address in (NODE4, NODE6))
        pod.run(backends.install, OTHER_PLAN, NODE, BACKEND[variant])
        assert pod.run(backends.in_force, OTHER_PLAN, BACKEND[variant])


def test_b44_killed_in_the_middle_what_is_left_can_be_removed(variant: Variant) -> None:
    with Scratch() as pod:
        pod.shell("ip", "link", "set", "lo", "up")
        foreign(pod, variant)
        before = holdings(pod, variant)
        killed_at(pod, variant, NODE_PLAN, "rules ip6tables")
        pod.run(backends.remove, NODE, BACKEND[variant])
        assert holdings(pod, variant) == before


@pytest.mark.parametrize("step", ["guard ip6tables", "rules ip6tables", "compare", "unguard iptables"])
def test_refused_at_any_step_everything_is_as_it_was(variant: Variant, step: str) -> None:
    """Once with nothing of ours before, once with another plan in force."""

    def refuse(name: str) -> None:
        if name == step:
            raise KernelRefused(step, "refused by the test", "none")

    with Scratch() as pod:
        pod.shell("ip", "link", "set", "lo", "up")
        foreign(pod, variant)
        fresh = holdings(pod, variant)
        with pytest.raises(KernelRefused, match="refused by the test"):
            pod.run(iptables.apply, variant, NODE_PLAN, Form.STEERING, frozenset, refuse_once(refuse))
        assert holdings(pod, variant) == fresh
        pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant])
        with pytest.raises(KernelRefused, match="refused by the test"):
            pod.run(iptables.apply, variant, OTHER_PLAN, Form.STEERING, frozenset, refuse_once(refuse))
        assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])
        pod.run(backends.remove, NODE_PLAN, BACKEND[variant])
        assert holdings(pod, variant) == fresh


def refuse_once(refuse: "iptables.Step") -> "iptables.Step":
    """The way back passes steps of the same names, which are not refused."""
    steps = iter([refuse] * (len(STEPS)))
    refused: list[str] = []

    def step(name: str) -> None:
        if not refused:
            try:
                next(steps)(name)
            except KernelRefused:
                refused.append(name)
                raise

    return step


def test_what_cannot_be_undone_is_said_and_stays_closed(variant: Variant) -> None:
    def refuse(name: str) -> None:
        if name.startswith(("rules ip6tables", "unguard")):
            raise KernelRefused(name, "refused by the test", "none")

    with pod_and_node() as (pod, node):
        with pytest.raises(KernelRefused, match=r"could not be undone.*new connections are dropped"):
            pod.run(iptables.apply, variant, NODE_PLAN, Form.STEERING, frozenset, refuse)
        assert not any(reaches(pod, node, address, arrived) for address in (NODE4, NODE6))
        pod.run(backends.install, NODE_PLAN, NODE, BACKEND[variant])
        assert pod.run(backends.in_force, NODE_PLAN, BACKEND[variant])


def test_rules_that_somebody_changes_meanwhile_are_not_called_sound(variant: Variant) -> None:
    with Scratch() as pod:
        pod.shell("ip", "link", "set", "lo", "up")

        def meddle(name: str) -> None:
            if name == "rules ip6tables":
                restore(pod, variant, "iptables", "*nat\n-F HEADGATE_CAPTURE_OUT\nCOMMIT\n")

        with pytest.raises(KernelRefused, match=r"read back.*HEADGATE_CAPTURE_OUT is empty"):
            pod.run(iptables.apply, variant, NODE_PLAN, Form.STEERING, frozenset, meddle)
        assert pod.run(backends.held) == frozenset()


# ── A kernel without a feature ─────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def pod_of_a_user_namespace() -> Iterator[Scratch]:
    """Where the kernel refuses the match `owner` to anybody from outside (net/netfilter/xt_owner.c: owner_check)."""
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo ready; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, Scratch() as pod:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            own, pod.fd = pod.fd, os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            os.close(own)
            yield pod
        finally:
            process.kill()


def test_a_match_that_the_kernel_refuses_is_named_and_nothing_is_half_applied(variant: Variant) -> None:
    with pod_of_a_user_namespace() as pod:
        foreign(pod, variant)
        before = holdings(pod, variant)
        with pytest.raises(KernelRefused) as refused:
            pod.run(backends.install, INIT_PLAN, INIT, BACKEND[variant])
        assert refused.value.command == f"iptables-{variant.value}-restore"
        assert "failed" in refused.value.stderr and "--backend nft" in refused.value.remedy
        assert holdings(pod, variant) == before
        pod.run(backends.install, INIT_PLAN, INIT, Backend.NFTABLES)
        assert pod.run(backends.in_force, INIT_PLAN, Backend.NFTABLES)


# ── Names ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_no_name_service_is_asked_for_a_users_number(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where NSS names a service that nobody has: the dynamic linker tells whether it is looked for."""
    switch = tmp_path / "nsswitch.conf"
    switch.write_text("passwd: files hgtest\ngroup: files hgtest\n")
    told = tmp_path / "told"
    tool = tmp_path / f"iptables-{variant.value}-restore"
    tool.write_text(f'#!/bin/sh\nLD_DEBUG=libs LD_DEBUG_OUTPUT={told} exec /usr/sbin/{tool.name} "$@"\n')
    tool.chmod(0o755)
    (tmp_path / f"iptables-{variant.value}-save").symlink_to(f"/usr/sbin/iptables-{variant.value}-save")
    monkeypatch.setattr(iptables_tools, "DIRECTORIES", (str(tmp_path), *iptables_tools.DIRECTORIES))
    text = "*filter\n:HG - [0:0]\n-A HG -m owner --uid-owner 1337-1337 --gid-owner 7-9 -j RETURN\nCOMMIT\n"

    def libraries_sought() -> str:
        with Scratch() as pod:
            pod.run(_with_switch, switch, iptables_tools.restore, variant, IPFamily.IPV4, text)
        found = "".join(path.read_text() for path in tmp_path.glob("told.*"))
        assert "libxtables" in found
        return found

    assert "libnss_hgtest" not in libraries_sought()
    monkeypatch.setattr(iptables_tools, "_forget_names", lambda: None)
    assert "libnss_hgtest" in libraries_sought()


def _with_switch(switch: Path, call: Callable[..., None], *arguments: object) -> None:
    """On a thread that ends afterwards: in a mount namespace of its own, with that file as /etc/nsswitch.conf."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
    assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
    assert libc.mount(os.fsencode(switch), b"/etc/nsswitch.conf", None, 0x1000, None) == 0  # MS_BIND
    call(*arguments)
