"""`headgate install`, `headgate uninstall`: manifests for kubectl. Nothing here needs Linux, root or a cluster."""

from collections.abc import Callable
from importlib import resources
from typing import Any, Final, TypeVar

import click

from agent.manifests.documents import IMAGE, NAMESPACE, Choice, InvalidChoice, installed, leaving, remaining

Command = TypeVar("Command", bound=Callable[..., Any])

_BASE: Final = "base"
_OPENSHIFT: Final = "openshift"
OVERLAYS: Final = ("gke", "k3s", _OPENSHIFT)
_POD_MONITOR: Final = "pod-monitor"
_WEBHOOK: Final = "webhook"
_WEBHOOK_OPENSHIFT: Final = "webhook-openshift"
_EXTRAS: Final = ("repair", "taint")
_LEAVE: Final = "leave"
_REMOVE: Final = "remove"

_OPTIONS: Final = (
    click.option(
        "--overlay",
        type=click.Choice(OVERLAYS),
        help="What is different there; without it: kubeadm, kind, EKS, all with /etc/cni/net.d and /opt/cni/bin.",
    ),
    click.option("--image", default=IMAGE, show_default=True, help="With a tag or a digest."),
    click.option("--namespace", default=NAMESPACE, show_default=True, help="One that holds nothing else."),
    click.option(
        "--pod-monitor", is_flag=True, help="Also a PodMonitor, where the Prometheus operator's definitions are."
    ),
    click.option(
        "--with",
        "extras",
        type=click.Choice(_EXTRAS),
        multiple=True,
        help="repair: pods that keep connections past the mesh are deleted, one at a time; taint: nodes that are "
        "registered with headgate.io/agent-not-ready lose it when the agent is ready. Each brings the rights that "
        "it needs.",
    ),
    click.option(
        "--webhook",
        is_flag=True,
        help="Also what gives labelled pods an init container and a sidecar when they are created (docs/webhook.md).",
    ),
)


def _common(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_common
def install(
    overlay: str | None, image: str, namespace: str, pod_monitor: bool, webhook: bool, extras: tuple[str, ...]
) -> None:
    """Print the manifests of agent and proxy, for `kubectl apply -f -`."""
    click.echo(
        installed(rendered(overlay, extras, pod_monitor=pod_monitor, webhook=webhook), _choice(image, namespace)),
        nl=False,
    )


@click.command()
@_common
@click.option(
    "--step",
    type=click.Choice([_LEAVE, _REMOVE]),
    default=_LEAVE,
    show_default=True,
    help="leave: an agent that takes plugin and rules away, for `kubectl apply -f -`; remove: what is left then, for "
    "`kubectl delete -f -`.",
)
def uninstall(
    overlay: str | None,
    image: str,
    namespace: str,
    pod_monitor: bool,
    webhook: bool,
    extras: tuple[str, ...],
    step: str,
) -> None:
    """Print what takes headgate out of a cluster, in two steps; give the options that it was installed with. What is to
    be done, and when, is said on standard error.

    Never delete the DaemonSets alone: the plugin would stay in the nodes' configuration, and no pod would start; the
    rules would stay in the pods, and lead to a proxy that is gone."""
    choice, shipped = _choice(image, namespace), rendered(overlay, extras, pod_monitor=pod_monitor, webhook=webhook)
    if step == _LEAVE:
        click.echo(leaving(shipped, choice), nl=False)
        click.echo(_THEN.format(namespace=namespace), err=True)
        return
    click.echo(remaining(shipped, choice), nl=False)
    if namespace != NAMESPACE:
        click.echo(
            f"namespace {namespace} is left: if nothing else is in it, kubectl delete namespace {namespace}", err=True
        )


_THEN: Final = """\
Apply this, with the options of `headgate install`; then, in this order:
  kubectl -n {namespace} rollout status daemonset/headgate-agent
      every node: the plugin is out of its CNI configuration, and new pods start unsteered
  kubectl -n {namespace} delete daemonset headgate-agent --cascade=foreground
      the agents take the rules out of the pods; connections through the proxy are cut
  headgate uninstall --step remove | kubectl delete --ignore-not-found -f -
      proxies, permissions, namespace
A node that is down keeps its plugin: run `headgate cni remove` there before it starts pods again."""


def _choice(image: str, namespace: str) -> Choice:
    try:
        return Choice(image, namespace)
    except InvalidChoice as error:
        raise click.UsageError(str(error)) from error


def rendered(overlay: str | None, extras: tuple[str, ...], *, pod_monitor: bool, webhook: bool) -> str:
    beside = (
        *((extra, extra in extras) for extra in _EXTRAS),
        (_POD_MONITOR, pod_monitor),
        (_WEBHOOK_OPENSHIFT, webhook and overlay == _OPENSHIFT),
        (_WEBHOOK, webhook),  # the last, so that its configuration is taken away first
    )
    names = (overlay or _BASE, *(name for name, wanted in beside if wanted))
    directory = resources.files("agent.manifests")
    return "---\n".join((directory / f"{name}.yaml").read_text(encoding="utf-8") for name in names)
