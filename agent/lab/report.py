"""What the demo found, as values, as the JSON of `headgate demo --output json`, and as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.lab import figures

PROOFS: Final = ("out4", "out6", "in4", "in6")
LEAST_REQUESTS: Final = 2000
"""In each phase whose split is judged: then 3σ of a 90/10 split is ± 2 percentage points."""
WEIGHTS_BEFORE: Final = {"v1": 90, "v2": 10}
WEIGHTS_AFTER: Final = {"v1": 50, "v2": 50}


@dataclass(frozen=True, slots=True)
class PodProofs:
    """A pod as the agent shows it: its state, and for each proof the reason why it failed, or None when it holds."""

    name: str
    state: str
    proofs: Mapping[str, str | None]
    reason: str = ""

    @property
    def proved(self) -> bool:
        return self.state == "proved" and all(self.proofs.get(kind, "not reported") is None for kind in PROOFS)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """All that one run of the demo measured. Durations in ns."""

    pods: tuple[PodProofs, ...]
    sent: int
    ok: int
    failures: Mapping[str, int]
    before: Mapping[str, int]
    after: Mapping[str, int]
    latency_ns: Mapping[str, int]
    buckets: tuple[int, ...]
    client_address_preserved: bool
    leftovers: tuple[str, ...]

    @property
    def failed(self) -> int:
        return self.sent - self.ok

    def problems(self) -> list[str]:
        """Why the demo did not show what it should; empty when it did."""
        found = [f"pod {pod.name} is {pod.state}, {_proof_words(pod)}" for pod in self.pods if not pod.proved]
        if not self.pods:
            found.append("the agent knows no pod")
        if self.failed:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in self.failures.items())
            found.append(f"{self.failed} of {self.sent} requests failed: {reasons or 'no reason told'}")
        for when, counts, weights in (
            ("before", self.before, WEIGHTS_BEFORE),
            ("after", self.after, WEIGHTS_AFTER),
        ):
            if sum(counts.values()) < LEAST_REQUESTS:
                found.append(f"only {sum(counts.values())} requests {when} the change, {LEAST_REQUESTS} are needed")
            if not figures.within_three_sigma(counts, weights):
                found.append(f"split {when} the change is {dict(counts)}: not within 3σ of {weights}")
        if not self.client_address_preserved:
            found.append("the server's application saw another address than the client's own")
        found += [f"left behind: {thing}" for thing in self.leftovers]
        return found

    def as_json(self) -> dict[str, Any]:
        """The object of `headgate demo --output json`. Latencies in ms."""
        return {
            "pods": [
                {
                    "name": pod.name,
                    "state": pod.state,
                    "proofs": {kind: kind in pod.proofs and pod.proofs[kind] is None for kind in PROOFS},
                }
                for pod in self.pods
            ],
            "requests": {"sent": self.sent, "ok": self.ok, "failed": self.failed},
            "split": {"before": _versions(self.before), "after": _versions(self.after)},
            "latency_ms": {name: round(self.latency_ns[name] / 1e6, 3) for name in ("p50", "p90", "p99")},
            "client_address_preserved": self.client_address_preserved,
            "leftovers": list(self.leftovers),
        }


def text(result: DemoResult, rules: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    """What a person reads: pods and proofs, rules (pod, `headgate rules show` of it), split, latency, notes."""
    lines = ["Pods, and the proof that their traffic goes through the proxy (out and in, IPv4 and IPv6)", ""]
    lines += [(f"  {'POD':<16}{'STATE':<12}" + "".join(f"{kind:<8}" for kind in PROOFS)).rstrip()]
    for pod in result.pods:
        marks = "".join(f"{'proved' if pod.proofs.get(kind, '') is None else 'FAILED':<8}" for kind in PROOFS)
        lines.append(f"  {pod.name:<16}{pod.state:<12}{marks}".rstrip())
        if not pod.proved:
            lines.append(f"    {_proof_words(pod)}")
    for pod_name, shown in rules:
        lines += ["", f"Rules in pod {pod_name}, after {result.sent} requests", ""]
        lines += [f"  {line}".rstrip() for line in shown.splitlines()]
    lines += ["", "Split of the Service `web`: VirtualService weights changed under load", ""]
    lines += _split("before", result.before, WEIGHTS_BEFORE) + _split("after", result.after, WEIGHTS_AFTER)
    lines += [f"  {result.sent} requests sent, {result.ok} answered, {result.failed} failed"]
    lines += ["", "Latency as the client saw it", "", *figures.histogram(result.buckets)]
    quantiles = "   ".join(f"{name} {figures.milliseconds(result.latency_ns[name])}" for name in ("p50", "p90", "p99"))
    lines += [f"  {quantiles}", ""]
    lines += [*notes, ""]
    preserved = "the client's own address" if result.client_address_preserved else "ANOTHER address than the client's"
    lines += [f"The server's application saw {preserved}."]
    lines += ["Removed all that was made; nothing is left." if not result.leftovers else "Left behind:"]
    lines += [f"  {thing}" for thing in result.leftovers]
    return "\n".join(lines) + "\n"


def _split(when: str, counts: Mapping[str, int], weights: Mapping[str, int]) -> list[str]:
    total = sum(counts.values())
    lines = []
    for name, weight in weights.items():
        share = 100 * counts.get(name, 0) / total if total else 0.0
        bar = "█" * round(share / 2)
        lines.append(f"  {when:<7} {name}  {weight:>3} % asked {share:>5.1f} % got {bar:<50} {counts.get(name, 0):>6}")
    verdict = "within 3σ" if figures.within_three_sigma(counts, weights) else "NOT within 3σ"
    return [*lines, f"  {'':<7} {verdict} of {total} requests", ""]


def _proof_words(pod: PodProofs) -> str:
    failed = [f"{kind}: {reason}" for kind in PROOFS if (reason := pod.proofs.get(kind, "not reported")) is not None]
    return "; ".join([*([pod.reason] if pod.reason else []), *failed]) or "no reason told"


def _versions(counts: Mapping[str, int]) -> dict[str, int]:
    return {"v1": counts.get("v1", 0), "v2": counts.get("v2", 0)}
