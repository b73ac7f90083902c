"""`headgate rules trace`: what the kernel does with packets, rule by rule, as it happens."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.client import ask, output_option, pod_path, run_dir_option, show, table
from agent.cli.interrupt import interrupts
from agent.cli.packet_filter import filter_of, for_option, trace_options
from agent.cli.target import Namespace, failing, namespace_of, namespace_options, pod_argument
from agent.printable import printable

if TYPE_CHECKING:
    from agent.tracing.filter import Filter
    from agent.tracing.traced import Trace, TracedPacket
    from agent.tracing.watch import Watch


@click.command("trace")
@pod_argument
@namespace_options
@run_dir_option
@output_option
@trace_options
@for_option
@click.option("--count", type=click.IntRange(1), help="End after so many packets.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="Packets a second that are traced; 5000 if not said.")
def trace(
    pod: tuple[str | None, str] | None,
    netns: Path | None,
    own: bool,
    run_dir: Path,
    output: str,
    for_s: float,
    count: int | None,
    limit: int | None,
    **meant: Any,
) -> None:
    """Show the rules that packets meet, in the kernel's own words and order, joined with what each rule is and what
    conntrack makes of the connection. Without a filter, every new TCP connection and every packet of other protocols.

    The table that this needs goes with the command, however it ends. A rule that does not match says nothing, and
    rules of iptables-legacy never do."""
    wanted = filter_of(**meant)
    where = namespace_of(pod, netns, own)
    if where is None:
        assert pod is not None
        where = Namespace(Path(ask(run_dir, f"/pods/{pod_path(run_dir, pod)}")["netns"]))
    with failing(where):
        _trace(where, wanted, for_s, count or 0, limit, output)


def _trace(where: Namespace, wanted: "Filter", for_s: float, count: int, limit: int | None, output: str) -> None:
    from agent.tracing import view
    from agent.tracing.table import PER_SECOND
    from agent.tracing.traced import Trace
    from agent.tracing.watch import Watch, run

    with interrupts() as stopped, where.call(Watch, wanted, limit or PER_SECOND) as watch:
        packets: list[TracedPacket] = []
        live = output == "table"
        if live:
            click.echo(f"tracing in {where.name} for {for_s:g} s", err=True)
        shown = run(watch, _print if live else packets.append, time.monotonic() + for_s, count, stopped)
        found = Trace(tuple(packets), watch.loss(), _notes(where, watch))
    if live:
        _tell(found, shown)
    else:
        show(view.as_json(found), output)


def _notes(where: Namespace, watch: "Watch") -> tuple[str, ...]:
    from agent.tracing.watch import notes

    try:
        return where.call(notes, watch)
    except click.ClickException as error:
        return (f"whether the rules were changed meanwhile cannot be told: {error.message}",)


def _print(packet: "TracedPacket") -> None:
    from agent.tracing import view

    click.echo(f"\n{view.heading(packet)}")
    click.echo(table(view.HEAD, view.rows(packet)))
    click.echo(f"=> {view.outcome(packet)}")
    sys.stdout.flush()


def _tell(found: "Trace", shown: int) -> None:
    from agent.tracing import view

    for note in found.notes:
        click.echo(f"note: {printable(note, 1000)}", err=True)
    for lost in view.told_loss(found.loss):
        click.echo(lost, err=True)
    whole = ", nothing lost" if found.loss.nothing else ""
    click.echo(f"{shown} packets traced{whole}", err=True)
