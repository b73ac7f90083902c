"""`headgate agent`: the node agent."""

import asyncio
import sys
from pathlib import Path

import click

from agent.plan import PlanSettings
from agent.reconcile import LifeSettings
from agent.settings import DEFAULT_DRAIN_S, WILDCARDS, AgentSettings
from proxy.api.constants import AGENT_METRICS_PORT, RUN_DIRECTORY


@click.command()
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=RUN_DIRECTORY,
    show_default=True,
    envvar="HEADGATE_RUN_DIR",
    help="Directory of the sockets shared with the proxy.",
)
@click.option(
    "--pods-file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="HEADGATE_PODS_FILE",
    help="YAML list of pods, read again when it changes. Without it every named network namespace is a pod.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=AGENT_METRICS_PORT,
    show_default=True,
    envvar="HEADGATE_AGENT_METRICS_PORT",
    help="Where /metrics is served.",
)
@click.option(
    "--bind",
    multiple=True,
    default=WILDCARDS,
    show_default=True,
    envvar="HEADGATE_BIND",
    help="Addresses of that port.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0, 3600),
    default=DEFAULT_DRAIN_S,
    show_default=True,
    envvar="HEADGATE_DRAIN_S",
    help="How long steered connections of a leaving pod may live on.",
)
@click.option(
    "--cleanup-on-exit",
    is_flag=True,
    envvar="HEADGATE_CLEANUP_ON_EXIT",
    help="Remove all rules at the end. Without it they stay: traffic never goes past the mesh during a restart.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    envvar="HEADGATE_LOG_FORMAT",
)
@click.option("-v", "--verbose", is_flag=True, help="Also log details.")
def agent(
    run_dir: Path,
    pods_file: Path | None,
    metrics_port: int,
    bind: tuple[str, ...],
    drain_s: float,
    cleanup_on_exit: bool,
    log_format: str,
    verbose: bool,
) -> None:
    """Run the node agent: find pods, install and prove their redirection, hand them to the proxy."""
    # Imported here: what the agent runs on is heavy, and `headgate agent --help` needs none of it.
    from agent import logs
    from agent.errors import CannotStart
    from agent.memory import share_one_heap
    from agent.supervisor import serve

    logs.configure(log_format, verbose=verbose)
    share_one_heap()
    life = LifeSettings(PlanSettings(), drain_s=drain_s)
    settings = AgentSettings(run_dir, pods_file, metrics_port, bind, cleanup_on_exit, life)
    try:
        asyncio.run(serve(settings))
    except CannotStart as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0)
