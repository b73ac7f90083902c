"""`headgate why`: the first step that keeps a pod out of the mesh, and its remedy."""

import sys
from pathlib import Path

import click

from agent.cli.client import output_option, run_dir_option, show
from agent.cli.target import pod_argument


@click.command()
@pod_argument
@click.option(
    "--netns",
    type=click.Path(path_type=Path),
    help="Look into this network namespace: /run/netns/NAME or /proc/PID/ns/net. Without POD, whatever pod that is; "
    "needs no agent.",
)
@run_dir_option
@output_option
def why(pod: tuple[str | None, str] | None, netns: Path | None, run_dir: Path, output: str) -> None:
    """Say why POD is not in the mesh: selection, annotations, namespace, ports, proxy, rules, policy, proofs, each in
    a line; of the first that fails what was found, why that stops it, and what to do. Exit status: 0 none fails, 1 one
    does, 2 wrong usage."""
    from agent.why import report
    from agent.why.gather import SeveralPods, gather
    from agent.why.steps import first_failure, judge

    if pod is None and netns is None:
        raise click.UsageError("give POD, or --netns PATH, or both")
    try:
        facts = gather(pod, netns, run_dir)
    except SeveralPods as error:
        raise click.UsageError(str(error)) from error
    verdicts = judge(facts)
    if output == "table":
        click.echo("\n".join(report.lines(facts, verdicts)))
    else:
        show(report.as_json(facts, verdicts), output)
    if first_failure(verdicts) is not None:
        sys.exit(1)
