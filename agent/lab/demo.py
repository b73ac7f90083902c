"""The main job, shown on a throw-away node: pods found, led through the proxy, measured, proved, and all removed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from agent.lab import machine, state
from agent.lab.errors import LabError
from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab, LabPod, headgate
from agent.lab.report import PROOFS, DemoResult, PodProofs
from agent.lab.spec import NODE_ADDRESS4
from proxy.api.constants import AGENT_METRICS_PORT, PROXY_METRICS_PORT

SERVICE_URLS: Final = ("http://10.96.0.10/", "http://[fd96::10]/")
"""The Service `web` of web.yaml: port 80, which no process of the lab listens on."""
APPLICATION_PORT: Final = 8080
REQUESTS: Final = 4000
"""Waited for in each phase: twice what is needed, and 3σ of 90/10 is ± 1.4 percentage points."""
CONNECTIONS: Final = 8
LOAD_SECONDS: Final = 25.0
PHASE_TIMEOUT_S: Final = 10.0
_BEFORE, _CHANGE, _AFTER = "before", "change", "after"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """What was read while the node was up."""

    pods: tuple[PodProofs, ...]
    load: Mapping[str, Any]
    preserved: bool
    rules: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def run(say: Say) -> tuple[DemoResult, Shown]:
    """Builds the node, shows it, removes it; `say` gets progress. LabError when a step could not be done; all that was
    made is removed in any case, before it is raised."""
    state.remove_abandoned()  # of a demo that was killed outright
    machine.adopt_orphans()
    before = machine.read()
    lab = Lab(name=f"demo{os.getpid()}")
    say("building a node: three pods, a bridge, IPv4 and IPv6, two nginx")
    try:
        with lab:
            shown = _show(lab, say)
            say("removing everything")
    except BaseException:
        lab.down()  # once more: an interrupt may have come in the midst of the first
        raise
    left = machine.leftovers(before, machine.read(), lab.paths.name) + machine.descendants()
    return _result(shown, left), shown


def _show(lab: Lab, say: Say) -> Shown:
    say("starting headgate proxy and headgate agent; waiting for the four proofs of each pod")
    lab.start()
    client = lab.pod("client")
    say("calling the Service with curl")
    preserved = all(_curl_sees_client(client, url) for url in SERVICE_URLS)
    load = _load(lab, client, say)
    own = {str(client.address4), str(client.address6)}
    say("reading rules and counters")
    rules = tuple((name, _rules(lab, name)) for name in ("client", "web-v1"))
    pods = tuple(_pod(pod) for pod in lab.agent_pods())
    return Shown(pods, load, preserved and set(load["all"]["clients"]) == own, rules, _notes(lab))


def _load(lab: Lab, client: LabPod, say: Say) -> Mapping[str, Any]:
    """4,000 requests at 90/10, the weights' change with the load going on, 4,000 requests at 50/50."""

    def show(event: Mapping[str, Any]) -> None:
        say(f"load, {event['phase']} the change: {event['ok']} answered, {event['failed']} failed")

    with RunningLoad(client, SERVICE_URLS, connections=CONNECTIONS, seconds=LOAD_SECONDS) as load:
        load.begin(_BEFORE)
        load.until(REQUESTS, show, timeout_s=PHASE_TIMEOUT_S)
        load.begin(_CHANGE)
        say("changing the weights to 50/50; waiting until the proxy decides by them")
        lab.apply_object("split", _even_split())
        load.begin(_AFTER)
        load.until(REQUESTS, show, timeout_s=PHASE_TIMEOUT_S)
        return load.stop()


def _even_split() -> str:
    text = (resources.files("agent.lab") / "split.yaml").read_text(encoding="utf-8")
    return text.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50")


def _curl_sees_client(client: LabPod, url: str) -> bool:
    """Whether the application, on its own port, saw the client's own address in a call to the Service's port 80."""
    own = client.address6 if "[" in url else client.address4
    done = client.run(["curl", "--silent", "--show-error", "--fail", "--globoff", "--max-time", "5", url])
    try:
        answer = json.loads(done.stdout)
        return bool(answer["client"] == str(own) and answer["port"] == APPLICATION_PORT)
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{url} answered {done.stdout[:200]!r} instead of the lab server's JSON") from error


def _rules(lab: Lab, pod: str) -> str:
    return lab.node.run([*headgate(), "rules", "show", pod, "--run-dir", str(lab.run_directory)]).stdout


def _pod(shown: Mapping[str, Any]) -> PodProofs:
    proofs = shown.get("proofs") or {}
    return PodProofs(
        name=str(shown["name"]),
        state=str(shown["state"]),
        proofs={kind: _failure(proofs[kind]) for kind in PROOFS if kind in proofs},
        reason=str(shown.get("reason") or ""),
    )


def _failure(proof: Any) -> str | None:
    if isinstance(proof, Mapping):
        return None if proof.get("result") == "ok" else str(proof.get("reason") or proof.get("result"))
    return None if proof == "ok" else str(proof)


def _notes(lab: Lab) -> tuple[str, ...]:
    lines = []
    for who, port in (("proxy", PROXY_METRICS_PORT), ("agent", AGENT_METRICS_PORT)):
        url = f"http://{NODE_ADDRESS4}:{port}/metrics"
        done = lab.node.run(["curl", "--silent", "--show-error", "--fail", "--max-time", "5", url])
        series = sum(1 for line in done.stdout.splitlines() if line and not line.startswith("#"))
        lines.append(f"Metrics of the {who}: {url} on the node ({series} series)")
    return tuple(lines)


def _result(shown: Shown, left: list[str]) -> DemoResult:
    whole = shown.load["all"]
    return DemoResult(
        pods=shown.pods,
        sent=whole["sent"],
        ok=whole["ok"],
        failures=whole["reasons"],
        before=_by_version(shown.load["phases"][_BEFORE]["pods"]),
        after=_by_version(shown.load["phases"][_AFTER]["pods"]),
        latency_ns=whole["latency_ns"],
        buckets=tuple(whole["buckets"]),
        client_address_preserved=shown.preserved,
        leftovers=tuple(left),
    )


def _by_version(pods: Mapping[str, int]) -> dict[str, int]:
    return {name.removeprefix("web-"): count for name, count in pods.items()}
