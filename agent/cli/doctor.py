"""`headgate doctor`: what is wrong with this node, or will be; each with why it matters and what to do."""

import sys
import time
from pathlib import Path

import click

from agent.cli.client import run_dir_option, show, table, wide_output_option
from agent.doctor.checks import IDS
from agent.doctor.findings import Finding, Severity, Unseen

_SERIOUS = 1


def _list_ids(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(table(("ID", "ABOUT"), sorted(IDS.items())))
        ctx.exit()


@click.command()
@run_dir_option
@wide_output_option
@click.option(
    "--only",
    type=click.Choice(sorted(IDS)),
    multiple=True,
    metavar="ID",
    help="Show findings of this id only, and go by them; repeat for several. --list tells the ids.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Kubernetes objects, as the proxy's --config-dir. Without it, that of the agent or proxy of --run-dir.",
)
@click.option(
    "--netns",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Look at this network namespace as at a pod's: /run/netns/NAME or /proc/PID/ns/net; repeat for several. "
    "Without it, the pods of this node's agent.",
)
@click.option(
    "--cni-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/etc/cni/net.d"),
    show_default=True,
    envvar="HEADGATE_CNI_DIR",
    help="Where the container runtime takes the network's configuration from.",
)
@click.option("--list", "listed", is_flag=True, is_eager=True, expose_value=False, callback=_list_ids, help="Show ids.")
def doctor(
    run_dir: Path,
    output: str,
    only: tuple[str, ...],
    directory: Path | None,
    paths: tuple[Path, ...],
    cni_dir: Path,
) -> None:
    """Look at this node and its pods: kernel, rules, limits, ports, clocks, and what usually goes wrong in a mesh.
    Changes nothing. Exit 1 when something serious is found."""
    from agent.doctor.checks import judged
    from agent.doctor.examine import Sought, examine
    from agent.doctor.gather import admin
    from agent.doctor.gather.namespace import Place

    began_s = time.monotonic()
    named = tuple(Place(f"netns {path}", path) for path in paths)
    places, unseen = (named, ()) if named else admin.pods(run_dir)
    facts = examine(Sought(places, run_dir, directory, cni_dir))
    findings = judged(facts, frozenset(only))
    _say(findings, (*unseen, *facts.unseen), len(facts.pods), output, time.monotonic() - began_s)
    if any(finding.severity is Severity.SERIOUS for finding in findings):
        sys.exit(_SERIOUS)


def _say(findings: tuple[Finding, ...], unseen: tuple[Unseen, ...], pods: int, output: str, took_s: float) -> None:
    from agent.doctor import view

    if output in ("json", "yaml"):
        show(view.as_json(findings, unseen, pods), output)
        return
    if findings:
        click.echo(view.wide(findings) if output == "wide" else table(view.HEAD, view.rows(findings)))
    for line in view.unseen_lines(unseen):
        click.echo(line, err=True)
    hint = "; why and what to do: -o wide" if findings and output == "table" else ""
    click.echo(f"{view.summary(findings, pods, took_s)}{hint}", err=True)
