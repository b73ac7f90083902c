"""The capabilities in the DaemonSets: with these alone a node's pods are steered and proved, and each is needed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.lab import processes
from agent.lab.node import Lab, headgate
from agent.lab.spec import NODE_ADDRESS4, default_spec
from proxy.api.constants import PROXY_READY_PORT
from tests.kube.manifests.rendered import container

_WAIT_S = 20.0


def _granted(which: str) -> list[str]:
    return [name.lower() for name in container("base", which)["securityContext"]["capabilities"]["add"]]


def _confined(command: Sequence[str], capabilities: Sequence[str]) -> list[str]:
    """As a runtime starts root in a container: the bounding set is what was added, and no_new_privs."""
    only = ",".join(("-all", *(f"+{name}" for name in capabilities)))
    return ["setpriv", "--no-new-privs", "--bounding-set", only, "--inh-caps", only, *command]


@contextmanager
def _node(monkeypatch: pytest.MonkeyPatch, **without: str) -> Iterator[Lab]:
    """A lab whose agent and proxy have what the manifests grant, but for what `without` names."""
    start = processes.start

    def confined(netns: Any, command: Sequence[str], **rest: Any) -> subprocess.Popen[bytes]:
        which = command[len(headgate())] if command[: len(headgate())] == headgate() else ""
        if which in ("agent", "proxy"):
            command = _confined(command, [name for name in _granted(which) if name != without.get(which)])
        return start(netns, command, **rest)

    monkeypatch.setattr(processes, "start", confined)
    with Lab(default_spec()) as lab:
        yield lab


def _told(lab: Lab, which: str, words: str) -> None:
    ends_s = time.monotonic() + _WAIT_S
    while words not in lab.log(which):
        assert time.monotonic() < ends_s, f"{words!r} is not in\n{lab.log(which)}"
        time.sleep(0.02)


def test_what_the_manifests_grant_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with _node(monkeypatch) as lab:
        lab.start()
        lab.pod("client").run(["curl", "-sf", "-o", "/dev/null", "http://10.96.0.10/"])
        assert "not heard" not in lab.log("agent")


@pytest.mark.parametrize(
    ("capability", "options", "told"),
    [
        ("sys_admin", (), "setns: Operation not permitted"),
        ("net_admin", (), "CAP_NET_ADMIN is missing"),
        ("net_raw", ("--backend", "iptables-legacy"), "CAP_NET_RAW is missing"),
        ("net_broadcast", (), "changes of rules are not heard"),
    ],
)
def test_the_agent_needs(capability: str, options: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _node(monkeypatch, agent=capability) as lab:
        lab.start_agent(*options, cleanup_on_exit=False)
        _told(lab, "agent", told)


def test_the_agent_needs_sys_ptrace_to_see_where_another_users_process_is() -> None:
    """What agent.kernel.pod_processes asks of each process."""
    granted = _granted("agent")
    stranger = subprocess.Popen(["setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps=-all", "sleep", "60"])
    try:
        ends_s = time.monotonic() + _WAIT_S
        while Path(f"/proc/{stranger.pid}").stat().st_uid != 65534:
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        look = ["stat", "-L", f"/proc/{stranger.pid}/ns/net"]
        assert subprocess.run(_confined(look, granted), capture_output=True).returncode == 0
        granted.remove("sys_ptrace")
        refused = subprocess.run(_confined(look, granted), capture_output=True, text=True)
        assert "Permission denied" in refused.stderr
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    ("capability", "told"),
    [
        ("sys_admin", "network namespaces cannot be entered"),
        ("net_admin", "listeners cannot be opened in the pod's network namespace"),
    ],
)
def test_the_proxy_needs(capability: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _node(monkeypatch, proxy=capability) as lab:
        lab.start_proxy()
        lab.start_agent(cleanup_on_exit=False)
        _told(lab, "proxy", told)


def test_a_proxy_that_may_not_mark_its_sockets_says_so_and_is_never_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take the place of one that works."""
    with _node(monkeypatch, proxy="net_admin") as lab:
        lab.start_proxy()
        lab.start_agent(cleanup_on_exit=False)
        _told(lab, "proxy", "CAP_NET_ADMIN is missing")
        said = lab.node.run(["curl", "-s", f"http://{NODE_ADDRESS4}:{PROXY_READY_PORT}/healthz/ready"], check=False)
        assert "not ready: no pod can be served: SO_MARK: Operation not permitted" in said.stdout
