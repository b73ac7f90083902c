"""`headgate rules`: what the kernel holds for a pod, what it means, and whether it works."""

import sys
from pathlib import Path
from typing import Any

import click

from agent.cli.client import PodName, ask, output_option, pod_path, run_dir_option, show, table
from agent.printable import printable

_POD = click.argument("pod", type=PodName())


@click.group()
def rules() -> None:
    """The redirect rules of a pod: show, verify, plan."""


@rules.command("show")
@_POD
@run_dir_option
@output_option
def show_rules(pod: tuple[str | None, str], run_dir: Path, output: str) -> None:
    """Show each rule of POD with its meaning and counters, as the kernel holds it now."""
    answer = ask(run_dir, f"/rules/{pod_path(run_dir, pod)}")
    if output != "table":
        show(answer, output)
        return
    reason = f" ({printable(answer['reason'], 1000)})" if answer["reason"] else ""
    click.echo(f"pod {printable(answer['pod'])}: {answer['state']}{reason}")
    for section in answer["tables"]:
        click.echo(f"\ntable inet {section['name']}")
        rows = [_row(rule) for rule in section["rules"]]
        click.echo(table(("CHAIN", "RULE", "PACKETS", "MEANING"), rows))
    path = answer["return_path"]
    click.echo(f"\nip rule {path['preference']}: fwmark {path['mark']} lookup {path['table']} (v4 and v6)")
    click.echo(f"ip route: local default dev lo table {path['table']}")


def _row(rule: dict[str, Any]) -> tuple[str, ...]:
    packets = "missing" if rule["packets"] is None else str(rule["packets"])
    return (rule["chain"], rule["id"], packets, rule["meaning"])


@rules.command("verify")
@_POD
@run_dir_option
@output_option
def verify(pod: tuple[str | None, str], run_dir: Path, output: str) -> None:
    """Prove POD's redirection now, in both directions and families. Exit 1 when a proof fails."""
    answer = ask(run_dir, f"/pods/{pod_path(run_dir, pod)}/verify", method="POST")
    proofs = answer["proofs"] or {}
    if output != "table":
        show(answer, output)
    else:
        click.echo(table(("PROOF", "RESULT", "REASON"), [(n, p["result"], p["reason"]) for n, p in proofs.items()]))
    failed = [name for name, proof in proofs.items() if proof["result"] == "failed"]
    if failed or answer["state"] != "proved":
        names = ", ".join(failed) or "no direction could be tried"
        click.echo(f"pod {answer['namespace']}/{answer['name']} is not proved: {names}", err=True)
        sys.exit(1)


@rules.command("plan")
def plan() -> None:
    """Print the nft script that the agent installs into a pod without rules. Needs no agent."""
    from agent.plan import PlanSettings, build_plan
    from agent.plan.render.nft import install_script
    from agent.pods import PodRef

    example = PodRef("plan", "default", "plan")
    click.echo(install_script(build_plan(example, PlanSettings()), (), replace=False), nl=False)
