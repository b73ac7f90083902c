"""Everything that can be known of a pod from here, asked of agent, proxy and kernel. Blocking; changes nothing but that
the agent takes the four proofs."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from agent.kernel.netns import NetnsRefused, open_netns
from agent.why import hearing
from agent.why.asking import PROOF_S, Answer, ask
from agent.why.facts import (
    Agent,
    Facts,
    LeftOut,
    Listed,
    Netns,
    NoAnswer,
    NoNetns,
    Pod,
    Proxy,
    Silence,
    Unknown,
)
from agent.why.hearing import Unreadable, heard
from agent.why.look import look
from proxy.api.constants import ADMIN_SOCKET, PROXY_ADMIN_SOCKET

_PROVABLE: Final = frozenset({"installed", "proved"})
"""Of agent.supervisor.admin."""
_NOWHERE: Final = Unknown("no network namespace is known: give --netns PATH")


class SeveralPods(Exception):
    """A bare name is that of pods in several namespaces: say which."""


def gather(wanted: tuple[str | None, str] | None, netns: Path | None, run_dir: Path) -> Facts:
    """Of the pod `wanted` (namespace or None, name), and of what is at `netns`; one of both at least. Raises
    SeveralPods."""
    socket_path = run_dir / ADMIN_SOCKET
    as_said = "" if wanted is None else f"{wanted[0] or 'default'}/{wanted[1]}"
    known = ask(socket_path, "/pods")
    if isinstance(known, NoAnswer):
        return _without_agent(as_said, netns, run_dir, known)
    try:
        return _with_agent(heard(lambda body: _asked(wanted, netns, body["pods"]), known.body), netns, run_dir)
    except Unreadable as error:
        return _without_agent(as_said, netns, run_dir, NoAnswer(Silence.STRANGE, str(socket_path), str(error)))


def _asked(wanted: tuple[str | None, str] | None, netns: Path | None, pods: list[dict[str, Any]]) -> str:
    """NAMESPACE/NAME; "" for a namespace that is no known pod's."""
    if wanted is None:
        here = None if netns is None else _identity(netns)
        return next((f"{pod['namespace']}/{pod['name']}" for pod in pods if pod["netns_id"] == here), "")
    namespace, name = wanted
    if namespace is not None:
        return f"{namespace}/{name}"
    found = sorted({pod["namespace"] for pod in pods if pod["name"] == name})
    if len(found) > 1:
        raise SeveralPods(f"{name} is in several namespaces ({', '.join(found)}): give NAMESPACE/{name}")
    return f"{found[0] if found else 'default'}/{name}"


def _identity(netns: Path) -> str | None:
    try:
        with open_netns(netns, allow_own=True) as opened:
            return str(opened.id)
    except (NetnsRefused, OSError):
        return None


# ── With and without the agent ─────────────────────────────────────────────────────────────────────────────────────
def _without_agent(asked: str, netns: Path | None, run_dir: Path, silence: NoAnswer) -> Facts:
    seen = _NOWHERE if netns is None else look(str(netns))
    return Facts(asked, str(run_dir), silence, proxy=_proxy(run_dir, asked, None), netns=seen)


def _with_agent(asked: str, netns: Path | None, run_dir: Path) -> Facts:
    """Raises Unreadable."""
    namespace, _, name = asked.partition("/")
    path = "/".join(quote(part, safe="") for part in (namespace or "-", name or "-"))
    answer = ask(run_dir / ADMIN_SOCKET, f"/why/{path}")
    if isinstance(answer, NoAnswer):
        return _without_agent(asked, netns, run_dir, answer)
    if answer.status != 200:
        raise Unreadable(f"status {answer.status} for /why: an agent of another version")
    agent = heard(lambda body: hearing.agent(body["agent"]), answer.body)
    listed = heard(hearing.listed, answer.body)
    pod = heard(lambda body: None if body["pod"] is None else hearing.pod(body["pod"]), answer.body)
    if pod is None:
        return _of_stranger(asked, netns, run_dir, agent, listed)
    return _of_pod(asked, str(netns or pod.netns_path), run_dir, agent, _proved(pod, run_dir, path))


def _of_stranger(asked: str, netns: Path | None, run_dir: Path, agent: Agent, listed: Listed | LeftOut | None) -> Facts:
    at = (listed.netns_path if isinstance(listed, Listed) else None) if netns is None else str(netns)
    seen: Netns | NoNetns | Unknown = _NOWHERE if at is None else look(at)
    return Facts(asked, str(run_dir), agent, listed=listed, proxy=_proxy(run_dir, asked, None), netns=seen)


def _of_pod(asked: str, at: str, run_dir: Path, agent: Agent, pod: Pod) -> Facts:
    seen = look(at, pod.addresses)
    return Facts(asked, str(run_dir), agent, pod, proxy=_proxy(run_dir, asked, pod.uid), netns=seen)


def _proved(pod: Pod, run_dir: Path, path: str) -> Pod:
    """With the four proofs as they are now: the agent's own are up to a minute old."""
    if pod.state not in _PROVABLE:
        return pod
    answer = ask(run_dir / ADMIN_SOCKET, f"/pods/{path}/verify", method="POST", timeout_s=PROOF_S)
    if isinstance(answer, NoAnswer):
        return replace(pod, proofs=Unknown(f"the agent was asked for them: {answer.detail or answer.silence.value}"))
    if answer.status != 200:
        return replace(pod, proofs=Unknown(_refusal(answer)))
    # What the agent found while it took them is as new.
    found = heard(lambda body: (hearing.proofs(body), hearing.conntrack_full(body)), answer.body)
    return replace(pod, proofs=found[0], conntrack_full=found[1])


def _refusal(answer: Answer) -> str:
    body = answer.body
    return str(body.get("error", body)) if isinstance(body, dict) else str(body)


def _proxy(run_dir: Path, asked: str, uid: str | None) -> Proxy | NoAnswer:
    socket_path = run_dir / PROXY_ADMIN_SOCKET
    policy = ask(socket_path, "/policy")
    if isinstance(policy, NoAnswer):
        return policy
    pods = ask(socket_path, "/pods")
    if isinstance(pods, NoAnswer):
        return pods
    try:
        served = heard(lambda body: hearing.served(body, asked, uid), pods.body)
        return replace(heard(hearing.proxy, policy.body), served=served)
    except Unreadable as error:
        return NoAnswer(Silence.STRANGE, str(socket_path), str(error))
