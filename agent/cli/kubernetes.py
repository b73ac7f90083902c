"""Which API server a verb talks to, and as whom: kubectl's options and files. Which of its node's pods are ours."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from agent.kube.backoff import SPREAD_S

if TYPE_CHECKING:
    from agent.chaining.node import NodeDirectories
    from agent.kube.access import Access
    from agent.pods.selection import Mark
    from agent.settings import ClusterSettings

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULT: Final = Path(".kube/config")


class _MarkType(click.ParamType["Mark"]):
    """`KEY=VALUE`."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Mark":
        from agent.pods.selection import Mark

        if isinstance(value, Mark):
            return value
        key, equals, wanted = str(value).partition("=")
        if not key or not equals or not wanted:
            self.fail(f"{value!r}: give a label or annotation as KEY=VALUE", param, ctx)
        return Mark(key, wanted)


_OPTIONS: Final = (
    click.option(
        "--kubernetes",
        is_flag=True,
        envvar="HEADGATE_KUBERNETES",
        help="Pods of this node and objects from the API server, but for what --pods-file or --objects-dir tell.",
    ),
    click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path, dir_okay=False),
        help="As kubectl's; else the files of $KUBECONFIG; else the pod's service account; else ~/.kube/config.",
    ),
    click.option("--context", help="The kubeconfig's context; else its current one."),
    click.option("--node-name", envvar="NODE_NAME", help="This node's name at the API server; else the host name."),
    click.option(
        "--select",
        "marks",
        type=_MarkType(),
        multiple=True,
        help="A label, or an annotation, that selects a pod or a namespace, beside headgate.io/mesh=enabled; on a pod, "
        "any other value of it keeps the pod out. As istio.io/dataplane-mode=ambient.",
    ),
    click.option(
        "--exclude-namespace",
        "excluded",
        multiple=True,
        default=("kube-system", "headgate-system"),
        show_default=True,
        help="Whose pods are never selected.",
    ),
    click.option(
        "--cni-conf-dir",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        envvar="HEADGATE_CNI_CONF_DIR",
        help="The node's CNI configurations, /etc/cni/net.d mounted: our plugin is chained into the first, and kept "
        "there, so that no pod starts unsteered.",
    ),
    click.option(
        "--cni-bin-dir",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        envvar="HEADGATE_CNI_BIN_DIR",
        help="The node's CNI plugins, /opt/cni/bin mounted.",
    ),
    click.option(
        "--cni-plugin",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        default=None,
        envvar="HEADGATE_CNI_PLUGIN",
        help="Our plugin's program, to be copied there.",
    ),
    click.option(
        "--cni-own-conf",
        default="",
        help="A list of our own by this name, as 02-headgate.conflist, instead of changing the first one.",
    ),
    click.option(
        "--proc",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        default=Path("/proc"),
        show_default=True,
        envvar="HEADGATE_PROC",
        help="Where the node's processes are seen: its /proc, mounted.",
    ),
    click.option(
        "--spread",
        "spread_s",
        type=click.FloatRange(min=0),
        default=SPREAD_S,
        show_default=True,
        help="Seconds over which the agents of a cluster spread their first lists of objects, at random, for the API "
        "server's sake. A small cluster needs none.",
    ),
)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """As they were given."""

    kubernetes: bool
    kubeconfig: Path | None
    context: str | None
    node_name: str | None
    marks: "tuple[Mark, ...]"
    excluded: tuple[str, ...]
    cni_conf_dir: Path | None
    cni_bin_dir: Path | None
    cni_plugin: Path | None
    cni_own_conf: str
    proc: Path
    spread_s: float


def cluster_options(command: Command) -> Command:
    """The command gets the fields of `ClusterOptions`; `cluster_of` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def cluster_of(given: ClusterOptions) -> "ClusterSettings | None":
    """None: no API server is asked. Raises UsageError for contradictions, ClickException for what cannot be used."""
    if not given.kubernetes:
        if given.kubeconfig is not None or given.context is not None or given.marks:
            raise click.UsageError("--kubeconfig, --context and --select need --kubernetes")
        return None
    from agent.kube.errors import InvalidAccess
    from agent.pods.selection import OURS, Selection
    from agent.settings import ClusterSettings

    try:
        access = _found(given.kubeconfig, given.context)
    except InvalidAccess as error:
        raise click.ClickException(str(error)) from error
    selection = Selection(tuple(dict.fromkeys((OURS, *given.marks))), frozenset(given.excluded))
    node_name = given.node_name or socket.gethostname().lower()
    return ClusterSettings(access, node_name, selection, _cni(given), given.proc, given.spread_s)


def _cni(given: ClusterOptions) -> "NodeDirectories | None":
    from agent.chaining.node import NodeDirectories

    wanted = (given.cni_conf_dir, given.cni_bin_dir, given.cni_plugin)
    if wanted == (None, None, None):
        return None
    if given.cni_conf_dir is None or given.cni_bin_dir is None or given.cni_plugin is None:
        raise click.UsageError("--cni-conf-dir, --cni-bin-dir and --cni-plugin need each other")
    own = given.cni_own_conf
    if own and ("/" in own or not own.endswith(".conflist") or own.startswith(".")):
        raise click.UsageError("--cni-own-conf: give a file's name that ends in .conflist")
    return NodeDirectories(given.cni_conf_dir, given.cni_bin_dir, given.cni_plugin, own)


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
