"""`headgate proxy`: the per-node proxy, or a pod's own."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from proxy.api.constants import PROXY_METRICS_PORT, PROXY_READY_PORT, RUN_DIRECTORY
from proxy.settings import DEFAULT_DRAIN_S, MAX_WORKERS, WILDCARDS, ProxySettings, default_workers

_PORT = click.IntRange(0, 65535)


def _node(settings: ProxySettings) -> Callable[[], None]:
    from proxy.supervisor.service import run

    return lambda: run(settings)


def _sidecar(settings: ProxySettings, name: str, namespace: str, service_account: str) -> Callable[[], None]:
    from proxy.config.fields import LABEL_NAME, NAME
    from proxy.errors import printable
    from proxy.supervisor.pods import PodName
    from proxy.supervisor.sidecar import run

    for option, value, pattern in (
        ("--pod-name", name, NAME),
        ("--pod-namespace", namespace, LABEL_NAME),
        ("--service-account", service_account, NAME),
    ):
        if not pattern.fullmatch(value):
            raise click.BadParameter(f"{printable(value, 80)!r} is no name by RFC 1123", param_hint=option)
    # Without the API server nobody knows its uid; within one pod any will do.
    return lambda: run(settings, PodName(f"{namespace}/{name}", namespace, name, service_account))


def _make(run_dir: Path) -> None:
    from proxy.errors import CannotStart

    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"the run directory {run_dir} cannot be made: {error.strerror}; choose one that this user may write with "
            "--run-dir, in a container an emptyDir"
        ) from error


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
    show_default="cores this process may run on, 8 at most; 1 with --sidecar",
    envvar="HEADGATE_WORKERS",
    help="Worker processes. A pod is served by one of them, or by as many as its annotation headgate.io/workers says; "
    "with --sidecar by all.",
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
    "--when-replaced",
    type=click.Choice(["exit", "stay"]),
    default="exit",
    show_default=True,
    envvar="HEADGATE_WHEN_REPLACED",
    help="After another proxy took over and all connections have ended. stay: until SIGTERM, where whoever started "
    "this one would start it again, as a DaemonSet does.",
)
@click.option(
    "--sidecar",
    is_flag=True,
    envvar="HEADGATE_SIDECAR",
    help="Serve the one pod that this process runs in, without an agent; `headgate init` makes its rules. Needs no "
    "capability. With CAP_NET_ADMIN, where rules lead the answers back, the application sees its clients' addresses.",
)
@click.option(
    "--pod-name",
    default=lambda: os.uname().nodename,
    show_default="the host name",
    envvar="POD_NAME",
    help="With --sidecar: metadata.name of the pod.",
)
@click.option(
    "--pod-namespace",
    default="default",
    show_default=True,
    envvar="POD_NAMESPACE",
    help="With --sidecar: metadata.namespace of the pod.",
)
@click.option(
    "--service-account",
    default="default",
    show_default=True,
    envvar="SERVICE_ACCOUNT",
    help="With --sidecar: spec.serviceAccountName of the pod.",
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
    workers: int | None,
    drain_s: float,
    take_over: bool,
    when_replaced: str,
    sidecar: bool,
    pod_name: str,
    pod_namespace: str,
    service_account: str,
    log_format: str,
) -> None:
    """Serve the pods that the node agent announces, or with --sidecar the own one, until SIGTERM. Exit status: 0
    stopped as asked, 1 cannot start."""
    # Not before: `headgate --help` names this verb without paying for its imports.
    from proxy.errors import CannotStart
    from proxy.logs import configure

    if sidecar and take_over:
        raise click.UsageError("--take-over: a sidecar ends with its container; there is nobody to take over from")
    workers = workers or (1 if sidecar else default_workers())
    stays = when_replaced == "stay"
    settings = ProxySettings(run_dir, config_dir, metrics_port, ready_port, bind, drain_s, workers, take_over, stays)
    serve = _sidecar(settings, pod_name, pod_namespace, service_account) if sidecar else _node(settings)
    configure(log_format)
    try:
        _make(run_dir)
        serve()
    except (CannotStart, OSError) as error:
        logging.getLogger("headgate").error("cannot start: %s", error)
        sys.exit(1)
