"""`headgate rules verify`: whether the rules do what they are for."""

import sys
from pathlib import Path
from typing import Any

import click

from agent.cli.client import ask, output_option, pod_path, run_dir_option, show, table
from agent.cli.rules_plan import hint
from agent.cli.steering import bad_option, steering_options
from agent.cli.target import Namespace, failing, namespace_of, namespace_options, pod_argument
from agent.plan import InvalidPlan, PlanSettings, Steering
from agent.printable import printable


@click.command("verify")
@pod_argument
@namespace_options
@run_dir_option
@output_option
@click.option(
    "--fail-exit-code",
    type=click.IntRange(1, 255),
    default=1,
    show_default=True,
    envvar="HEADGATE_FAIL_EXIT_CODE",
    help="Exit status when it fails: what repairs pods looks for 126 of Istio's validator, 95 of Linkerd's.",
)
@steering_options()
def verify(
    pod: tuple[str | None, str] | None,
    netns: Path | None,
    own: bool,
    run_dir: Path,
    output: str,
    fail_exit_code: int,
    steering: Steering,
    settings: PlanSettings,
) -> None:
    """Prove redirection. With POD, by the agent: in both directions and families. Without, by connections from inside:
    as the application, as the proxy and from outside, to loopback, the own address, elsewhere and what is excluded;
    what is expected follows from the options, which are those of the install."""
    where = namespace_of(pod, netns, own)
    if where is None:
        assert pod is not None
        _by_agent(ask(run_dir, f"/pods/{pod_path(run_dir, pod)}/verify", method="POST"), output, fail_exit_code)
        return
    try:
        with failing(where, fail_exit_code):
            _from_inside(where, steering, settings, output, fail_exit_code)
    except InvalidPlan as error:
        raise bad_option(error) from None


def _by_agent(answer: dict[str, Any], output: str, fail_exit_code: int) -> None:
    proofs = answer["proofs"] or {}
    if output != "table":
        show(answer, output)
    else:
        click.echo(table(("PROOF", "RESULT", "REASON"), [(n, p["result"], p["reason"]) for n, p in proofs.items()]))
    failed = [name for name, proof in proofs.items() if proof["result"] == "failed"]
    if failed or answer["state"] != "proved":
        names = ", ".join(failed) or "no direction could be tried"
        click.echo(printable(f"pod {answer['namespace']}/{answer['name']} is not proved: {names}", 1000), err=True)
        sys.exit(fail_exit_code)


def _from_inside(
    where: Namespace, steering: Steering, settings: PlanSettings, output: str, fail_exit_code: int
) -> None:
    from agent.verify import verify as run
    from agent.verify.outcome import HEAD

    report = where.call(run, steering, settings)
    if output != "table":
        show(report.as_json(), output)
    else:
        click.echo(table(HEAD, report.rows()))
        for reason in report.untried:
            click.echo(f"not tried: {printable(reason, 1000)}", err=True)
        click.echo(f"{report.summary} in {report.seconds:.2f} s", err=True)
    if not report.ok:
        click.echo(f"{where.name} is not proved: {printable(report.why_not, 1000)}", err=True)
        hint(where, steering, settings)
        sys.exit(fail_exit_code)
