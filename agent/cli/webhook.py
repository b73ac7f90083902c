"""`headgate webhook`: mutating admission for init mode, as an API server calls it."""

import asyncio
from pathlib import Path

import click

from agent.cli.access import access_of, access_options
from agent.cli.names import is_label, label, name
from agent.manifests.documents import IMAGE
from proxy.api.constants import AGENT_METRICS_PORT

WEBHOOK = "headgate-webhook"
PORT = 10250
"""Beside 443 the one at which clouds let API servers reach pods (GKE: masters of private clusters; EKS: the recommended
rules; cert-manager's default for the same reason)."""


@click.command()
@access_options
@click.option(
    "--image",
    default=IMAGE,
    show_default=True,
    envvar="HEADGATE_IMAGE",
    help="Of the containers that pods are given, with a tag or a digest.",
)
@click.option(
    "--native-sidecars/--no-native-sidecars",
    "native",
    default=True,
    show_default=True,
    envvar="HEADGATE_NATIVE_SIDECARS",
    help="The proxy as an init container that stays (Kubernetes 1.29); else as one container more.",
)
@click.option(
    "--config-map",
    default="",
    envvar="HEADGATE_CONFIG_MAP",
    help="Policy: a ConfigMap of this name in each pod's own namespace. Without it pods are steered, and pass.",
)
@click.option("--namespace", callback=label, help="Where Service and Secret are; else the one that it runs in.")
@click.option(
    "--service", default=WEBHOOK, show_default=True, callback=label, help="Whose name the certificate is for."
)
@click.option(
    "--secret", default=WEBHOOK, show_default=True, callback=name, help="Holds the certificates, for all replicas."
)
@click.option(
    "--configuration",
    default=WEBHOOK,
    show_default=True,
    callback=name,
    help="The MutatingWebhookConfiguration whose caBundle is kept.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    envvar="HEADGATE_WEBHOOK_PORT",
    help="Where API servers ask, over TLS.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=AGENT_METRICS_PORT,
    show_default=True,
    envvar="HEADGATE_WEBHOOK_METRICS_PORT",
    help="Where /metrics, /healthz/ready and /healthz/live are.",
)
@click.option("--bind", multiple=True, help="Addresses of both ports; else all.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    envvar="HEADGATE_LOG_FORMAT",
)
def webhook(
    kubeconfig: Path | None,
    context: str | None,
    image: str,
    native: bool,
    config_map: str,
    namespace: str | None,
    service: str,
    secret: str,
    configuration: str,
    port: int,
    metrics_port: int,
    bind: tuple[str, ...],
    log_format: str,
) -> None:
    """Answer API servers that are about to create a pod: with `headgate init` and the sidecar in it.

    Makes its own authority and certificate, kept in a Secret that all replicas share, and tells API servers of it.
    `headgate install --webhook` prints all that it needs."""
    from agent import logs
    from agent.errors import CannotStart
    from agent.inject.template import InvalidTemplate, Template
    from agent.webhook import injecting
    from agent.webhook.keeper import Names
    from agent.webhook.service import WebhookSettings, serve

    try:
        template = Template(image=image, native=native, config_map=config_map)
    except InvalidTemplate as error:
        raise click.UsageError(str(error)) from error
    access = access_of(kubeconfig, context)
    where = namespace or access.namespace
    if not is_label(where):
        raise click.ClickException(f"{access.origin}: names no namespace; give --namespace")
    names = Names(where, secret, configuration, f"{service}.{where}.svc")
    logs.configure(log_format)
    try:
        asyncio.run(serve(WebhookSettings(access, names, port, metrics_port, bind), injecting.by(template)))
    except CannotStart as error:
        raise click.ClickException(str(error)) from error
