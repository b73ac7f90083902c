"""`headgate proxy`: the per-node proxy."""

import logging
import sys
from pathlib import Path

import click

from proxy.api.constants import PROXY_METRICS_PORT, PROXY_READY_PORT, RUN_DIRECTORY
from proxy.settings import DEFAULT_DRAIN_S, MAX_WORKERS, WILDCARDS, ProxySettings, default_workers

_PORT = click.IntRange(0, 65535)


@click.command()
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=RUN_DIRECTORY,
    show_default=True,
    envvar="HEADGATE_RUN_DIR",
    help="Directory of the sockets shared with the agent.",
)
@click.option(
    "--config-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="HEADGATE_CONFIG_DIR",
    help="Directory of Kubernetes YAML, read again when it changes. Without it the agent's objects apply, if any.",
)
@click.option(
    "--metrics-port",
    type=_PORT,
    default=PROXY_METRICS_PORT,
    show_default=True,
    envvar="HEADGATE_METRICS_PORT",
    help="Where /metrics is served.",
)
@click.option(
    "--ready-port",
    type=_PORT,
    default=PROXY_READY_PORT,
    show_default=True,
    envvar="HEADGATE_READY_PORT",
    help="Where /healthz/ready is served.",
)
@click.option(
    "--bind",
    "bind",
    multiple=True,
    default=WILDCARDS,
    show_default=True,
    envvar="HEADGATE_BIND",
    help="Addresses of both ports; repeat for several.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=default_workers,
    show_default="cores this process may run on, 8 at most",
    envvar="HEADGATE_WORKERS",
    help="Worker processes. A pod is served by one of them, or by as many as its annotation headgate.io/workers says.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(0, 3600),
    default=DEFAULT_DRAIN_S,
    show_default=True,
    envvar="HEADGATE_DRAIN_S",
    help="Seconds that connections get to finish when the proxy ends or a pod is replaced.",
)
@click.option(
    "--take-over",
    is_flag=True,
    envvar="HEADGATE_TAKE_OVER",
    help="Take the place of a proxy that runs on this directory: it ends once this one is ready, and nothing is cut "
    "before its --drain-s.",
)
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    envvar="HEADGATE_LOG_FORMAT",
    help="One line a record, or one JSON object.",
)
def proxy(
    run_dir: Path,
    config_dir: Path | None,
    metrics_port: int,
    ready_port: int,
    bind: tuple[str, ...],
    workers: int,
    drain_s: float,
    take_over: bool,
    log_format: str,
) -> None:
    """Serve the pods that the node agent announces, until SIGTERM. Exit status: 0 stopped as asked, 1 cannot start."""
    # Not before: `headgate --help` names this verb without paying for its imports.
    from proxy.errors import CannotStart
    from proxy.logs import configure
    from proxy.supervisor.service import run

    configure(log_format)
    settings = ProxySettings(run_dir, config_dir, metrics_port, ready_port, bind, drain_s, workers, take_over)
    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        run(settings)
    except (CannotStart, OSError) as error:
        logging.getLogger("headgate").error("cannot start: %s", error)
        sys.exit(1)
