"""What the agent tells on the network of itself and its pods, for `headgate check`: no more than its metrics do, with
the reasons."""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from agent.reconcile import Life


def status_view(facts: Mapping[str, Any], lives: Iterable[Life]) -> dict[str, Any]:
    """`facts`: `proxy_connected` and `problems`. Keys are stable."""
    return {
        "version": _version(),
        "proxy_connected": facts["proxy_connected"],
        "problems": list(facts["problems"]),
        "pods": [
            {
                "namespace": life.pod.namespace,
                "name": life.pod.name,
                "uid": life.pod.uid,
                "state": life.state.value,
                "reason": life.reason,
                "failed_proofs": [] if life.proofs is None else list(life.proofs.failures),
            }
            for life in lives
        ],
    }


def _version() -> str:
    try:
        return version("headgate")
    except PackageNotFoundError:
        return "unknown"
