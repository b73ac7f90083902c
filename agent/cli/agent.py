"""`headgate agent`: the node agent."""

import asyncio
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from agent.cli.defaults import default_options
from agent.cli.importing import importing
from agent.cli.kubernetes import ClusterOptions, cluster_of, cluster_options
from agent.plan import OnUnsteered, PlanSettings, ProbeSettings, Steering
from agent.reconcile import LifeSettings
from agent.settings import AUTO, DEFAULT_DRAIN_S, DEFAULT_PARK_TIMEOUT_S, WILDCARDS, AgentSettings
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
    "--objects-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="HEADGATE_OBJECTS_DIR",
    help="Directory of Kubernetes YAML whose objects the proxy is told of, read again when it changes. Without it the "
    "proxy has its own source of policy.",
)
@cluster_options
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
    "--park-timeout",
    "park_timeout_s",
    type=click.FloatRange(0, 3600),
    default=DEFAULT_PARK_TIMEOUT_S,
    show_default=True,
    envvar="HEADGATE_PARK_TIMEOUT",
    help="Seconds that connections wait for a proxy that has ended; then they are refused.",
)
@click.option(
    "--on-unsteered",
    type=click.Choice([choice.value for choice in OnUnsteered]),
    default=OnUnsteered.REPORT.value,
    show_default=True,
    envvar="HEADGATE_ON_UNSTEERED",
    help="Connections found outside the mesh, older than the rules or opened while these were missing: leave and "
    "report them, or reset them.",
)
@click.option(
    "--backend",
    type=click.Choice([AUTO, "nft", "iptables-nft", "iptables-legacy"]),
    default=AUTO,
    show_default=True,
    envvar="HEADGATE_BACKEND",
    help="What the rules are made of, in every pod of the node; auto: the first that works here.",
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
@default_options
def agent(
    run_dir: Path,
    pods_file: Path | None,
    objects_dir: Path | None,
    metrics_port: int,
    bind: tuple[str, ...],
    drain_s: float,
    park_timeout_s: float,
    on_unsteered: str,
    backend: str,
    cleanup_on_exit: bool,
    log_format: str,
    verbose: bool,
    defaults: Steering,
    **cluster: Any,
) -> None:
    """Run the node agent: find pods, install and prove their redirection, hand them to the proxy."""
    found = cluster_of(ClusterOptions(**cluster))
    if found is not None and found.cni is not None and pods_file is not None:
        raise click.UsageError("--cni-conf-dir needs the API server's pods: leave --pods-file out")
    probes = ProbeSettings() if found is not None and found.node_netns is not None else None
    life = LifeSettings(PlanSettings(defaults=defaults, probes=probes), drain_s=drain_s)
    settings = AgentSettings(
        run_dir=run_dir,
        pods_file=pods_file,
        metrics_port=metrics_port,
        bind=bind,
        cleanup_on_exit=cleanup_on_exit,
        park_timeout_s=park_timeout_s,
        life=life,
        objects_dir=objects_dir,
        cluster=found,
        on_unsteered=OnUnsteered(on_unsteered),
        backend=backend,
    )
    _run(settings, log_format, verbose=verbose)


def _run(settings: AgentSettings, log_format: str, *, verbose: bool) -> NoReturn:
    # Imported here: what the agent runs on is heavy, and `headgate agent --help` needs none of it.
    with importing():
        from agent import logs
        from agent.errors import CannotStart
        from agent.memory import share_one_heap
        from agent.supervisor import serve

    logs.configure(log_format, verbose=verbose)
    share_one_heap()
    try:
        asyncio.run(serve(settings))
    except CannotStart as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0)
