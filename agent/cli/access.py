"""Which API server a command talks to, and as whom: kubectl's options and files. Nothing here needs Linux."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from agent.kube.access import Access

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULT: Final = Path(".kube/config")

ACCESS_OPTIONS: Final = (
    click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path, dir_okay=False),
        help="As kubectl's; else the files of $KUBECONFIG; else the pod's service account; else ~/.kube/config.",
    ),
    click.option("--context", help="The kubeconfig's context; else its current one."),
)


def access_options(command: Command) -> Command:
    """The command gets `kubeconfig` and `context`; `access_of` reads them."""
    for option in reversed(ACCESS_OPTIONS):
        command = option(command)
    return command


def access_of(kubeconfig: Path | None, context: str | None) -> "Access":
    """Raises ClickException for what cannot be used."""
    from agent.kube.errors import InvalidAccess

    try:
        return _found(kubeconfig, context)
    except InvalidAccess as error:
        raise click.ClickException(str(error)) from error


def _found(kubeconfig: Path | None, context: str | None) -> "Access":
    """In kubectl's order; a pod's own account before a home directory, which an image may bring along."""
    from agent.kube.incluster import in_cluster
    from agent.kube.kubeconfig import read_kubeconfig

    if kubeconfig is not None:
        return read_kubeconfig((kubeconfig,), context)
    if listed := [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]:
        return read_kubeconfig(listed, context)
    if context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(os.environ)
    return read_kubeconfig((Path.home() / _DEFAULT,), context)
