"""`headgate pods`: the node's pods, their state and proofs."""

from pathlib import Path
from typing import Any

import click

from agent.cli.client import ask, output_option, run_dir_option, show, table

_PROOFS = ("out4", "out6", "in4", "in6")
_MARKS = {"ok": "ok", "failed": "FAILED", "absent": "-"}


@click.command()
@run_dir_option
@output_option
def pods(run_dir: Path, output: str) -> None:
    """Show the node's pods: state, the four proofs (from and to the pod, IPv4 and IPv6), and what is wrong."""
    answer = ask(run_dir, "/pods")
    if output != "table":
        show(answer, output)
        return
    rows = [_row(pod) for pod in answer["pods"]]
    head = ("NAMESPACE", "NAME", "STATE", *(name.upper() for name in _PROOFS), "ADDRESSES", "REASON")
    click.echo(table(head, rows))
    if not answer["proxy_connected"]:
        click.echo("no proxy is connected", err=True)
    for problem in answer["problems"]:
        click.echo(f"problem: {problem}", err=True)


def _row(pod: dict[str, Any]) -> tuple[str, ...]:
    proofs = pod["proofs"] or {}
    marks = (_MARKS.get(proofs.get(name, {}).get("result"), "-") for name in _PROOFS)
    return (pod["namespace"], pod["name"], pod["state"], *marks, ",".join(pod["addresses"]) or "-", pod["reason"])
