"""`headgate rules explain`: what the rules that are there do to a packet, and why."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.client import ask, output_option, pod_path, run_dir_option, show
from agent.cli.packet import options_of, packet_options, usage
from agent.cli.target import Namespace, failing, namespace_of, namespace_options, pod_argument
from agent.printable import printable
from agent.ruleset.packet_options import Options

if TYPE_CHECKING:
    from agent.ruleset.explained import Explained


@click.command("explain")
@pod_argument
@namespace_options
@run_dir_option
@packet_options
@click.option("--all", "everything", is_flag=True, help="Show every rule that missed, however many in a row.")
@click.option("--live", is_flag=True, help="Also send it, and compare with the kernel's own trace.")
@output_option
def explain(
    pod: tuple[str | None, str] | None,
    netns: Path | None,
    own: bool,
    run_dir: Path,
    everything: bool,
    live: bool,
    output: str,
    **packet: Any,
) -> None:
    """Say what becomes of a packet and why: every rule that it meets, of all tables and tools, in the kernel's order,
    whoever made it. What cannot be interpreted is named, and both ways are followed. Nothing is sent but with --live;
    then exit 1 when the kernel did otherwise."""
    options = options_of(packet)
    where = namespace_of(pod, netns, own)
    if where is None:
        assert pod is not None
        where = Namespace(Path(ask(run_dir, f"/pods/{pod_path(run_dir, pod)}")["netns"]))
    with failing(where), usage():
        if live:
            _try(where, options, everything, output)
        else:
            _explain(where, options, everything, output)


def _explain(where: Namespace, options: Options, everything: bool, output: str) -> None:
    from agent.ruleset.explained_view import as_json
    from agent.ruleset.explaining import explained

    found = where.call(explained, options, everything=everything or output != "table")
    if output == "table":
        _tell(found, everything)
    else:
        show(as_json(found), output)


def _try(where: Namespace, options: Options, everything: bool, output: str) -> None:
    from agent.ruleset.explained_view import as_json
    from agent.tracing import beside_view
    from agent.tracing.live import tried
    from agent.verify.probes import NotPermitted

    try:
        found, live = where.call(tried, options, everything=everything or output != "table")
    except NotPermitted as error:
        raise click.ClickException(f"{where.name}: {error}") from None
    if output == "table":
        _tell(found, everything)
        click.echo()
        for line in beside_view.lines(live):
            click.echo(line)
    else:
        show({**as_json(found), "live": beside_view.as_json(live)}, output)
    if live.differs:
        sys.exit(1)


def _tell(found: "Explained", everything: bool) -> None:
    from agent.ruleset import explained_view

    for line in explained_view.lines(found, everything=everything):
        click.echo(line)
    click.echo()
    for line in explained_view.outcomes(found):
        click.echo(line)
    for reason in found.unread:
        click.echo(f"not read: {printable(reason, 1000)}", err=True)
