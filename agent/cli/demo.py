"""`headgate demo`: the main job on a throw-away node, then nothing left of it."""

from __future__ import annotations

import json
import signal
import sys
from types import FrameType

import click

from agent.cli.progress import Progress
from agent.lab import demo as lab_demo
from agent.lab import report
from agent.lab.errors import LabError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def demo(output: str) -> None:
    """Show the main job on a throw-away node of this machine (root); exit 0 only when all of it held."""
    progress = Progress()
    for number in _ENDING:
        signal.signal(number, _interrupted)
    try:
        result, shown = lab_demo.run(progress.say)
    except LabError as error:
        progress.end()
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        progress.end()
        click.echo("interrupted; everything made is removed", err=True)
        sys.exit(130)
    progress.end()
    if output == "json":
        click.echo(json.dumps(result.as_json()))
    else:
        click.echo(report.text(result, shown.rules, shown.notes), nl=False)
        click.echo(f"{progress.elapsed_s():.1f} s in all.")
    problems = result.problems()
    for problem in problems:
        click.echo(f"demo: {problem}", err=True)
    sys.exit(1 if problems else 0)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """The first one leads to the removal of all that was made; a second one must not cut that short."""
    for ignored in _ENDING:
        signal.signal(ignored, signal.SIG_IGN)
    raise KeyboardInterrupt
