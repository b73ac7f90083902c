"""`headgate pods`: the node's pods, their state and proofs."""

from pathlib import Path
from typing import Any

import click

from agent.cli.client import ask, run_dir_option, show, table, wide_output_option

_PROOFS = ("out4", "out6", "in4", "in6")
_WIDE = ("UNSTEERED", "DRIFTS", "FOREIGN", "NETNS")
_PROBED = ("PROBES",)
"""Connections outside the mesh (grandfathered+drift+rules_changed), drifts found, others' chains before ours."""
_MARKS = {"ok": "ok", "failed": "FAILED", "absent": "-", "exempt": "n/a"}


@click.command()
@run_dir_option
@wide_output_option
def pods(run_dir: Path, output: str) -> None:
    """Show the node's pods: state, the four proofs (from and to the pod, IPv4 and IPv6), and what is wrong."""
    answer = ask(run_dir, "/pods")
    if output not in ("table", "wide"):
        show(answer, output)
        return
    wide = output == "wide"
    probed = wide and any(pod["probes"] is not None for pod in answer["pods"])
    proofs = (name.upper() for name in _PROOFS)
    more = (*(_WIDE if wide else ()), *(_PROBED if probed else ()))
    head = ("NAMESPACE", "NAME", "STATE", *proofs, *more, "ADDRESSES", "REASON")
    skipped = [_skipped(pod, len(head)) for pod in answer.get("skipped", ())]
    click.echo(table(head, [*(_row(pod, wide=wide, probed=probed) for pod in answer["pods"]), *skipped]))
    if not answer["proxy_connected"]:
        click.echo("no proxy is connected", err=True)
    for problem in answer["problems"]:
        click.echo(f"problem: {problem}", err=True)


def _skipped(pod: dict[str, Any], columns: int) -> tuple[str, ...]:
    """A pod of the node that is none of ours."""
    return (pod["namespace"], pod["name"], "skipped", *("-" for _ in range(columns - 4)), pod["reason"])


def _row(pod: dict[str, Any], *, wide: bool, probed: bool) -> tuple[str, ...]:
    proofs = pod["proofs"] or {}
    marks = (_MARKS.get(proofs.get(name, {}).get("result"), "-") for name in _PROOFS)
    more: tuple[str, ...] = ()
    if wide:
        unsteered = pod["unsteered_connections"]
        counts = "+".join(str(unsteered[reason]) for reason in ("grandfathered", "drift", "rules_changed"))
        more = (counts, str(pod["drifts"]), str(len(pod["foreign_chains"])), pod["netns"])
    if probed:
        more += (_ways(pod["probes"]),)
    addresses = ",".join(pod["addresses"]) or "-"
    return (pod["namespace"], pod["name"], pod["state"], *marks, *more, addresses, pod["reason"])


def _ways(probes: dict[str, Any] | None) -> str:
    """Of kubelet's probes: as each address answers them; `-` for a pod that the node gives them no address for."""
    if probes is None or not probes["listed"]:
        return "-"
    return ",".join(dict.fromkeys(path["status"] for path in probes["paths"])) or "untried"
