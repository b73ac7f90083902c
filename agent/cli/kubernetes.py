"""Which API server a verb talks to, and as whom: kubectl's options and files. Which of its node's pods are ours."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from agent.cli.access import ACCESS_OPTIONS, access_of
from agent.kube.backoff import SPREAD_S

if TYPE_CHECKING:
    from agent.chaining.node import NodeDirectories
    from agent.pods.selection import Mark
    from agent.pods.taint import Taint
    from agent.settings import ClusterSettings

Command = TypeVar("Command", bound=Callable[..., Any])


_DELETE_POD: Final = "delete-pod"


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


class _TaintType(click.ParamType["Taint"]):
    """`KEY:EFFECT`."""

    name = "KEY:EFFECT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Taint":
        from agent.pods.taint import InvalidTaint, Taint

        if isinstance(value, Taint):
            return value
        try:
            return Taint.read(str(value))
        except InvalidTaint as error:
            self.fail(f"{value!r}: {error}", param, ctx)


_OPTIONS: Final = (
    click.option(
        "--kubernetes",
        is_flag=True,
        envvar="HEADGATE_KUBERNETES",
        help="Pods of this node and objects from the API server, but for what --pods-file or --objects-dir tell.",
    ),
    *ACCESS_OPTIONS,
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
        "--node-netns",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        envvar="HEADGATE_NODE_NETNS",
        help="The node's network namespace, as /host/proc/1/ns/net: kubelet's probes get an address there by which "
        "pods know them, and reach the application itself. Without it they meet the proxy like any connection.",
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
    click.option(
        "--repair",
        type=click.Choice(["enrol", _DELETE_POD]),
        default="enrol",
        show_default=True,
        envvar="HEADGATE_REPAIR",
        help="What becomes of a pod that started before our plugin could hold it: it is enrolled as it is, and what it "
        "had opened before goes on past the mesh; or, where that lives for more than a minute, it is deleted, one "
        "at a time, if its controller makes another one.",
    ),
    click.option(
        "--taint",
        type=_TaintType(),
        envvar="HEADGATE_TAINT",
        help="KEY:EFFECT of a taint that the node was registered with (kubelet --register-with-taints), to be taken "
        "away once agent and proxy are ready; it is never put back. As headgate.io/agent-not-ready:NoSchedule.",
    ),
    click.option(
        "--no-status",
        is_flag=True,
        envvar="HEADGATE_NO_STATUS",
        help="Say nothing at the API server: no pod's headgate.io/status, no Events, no route's status.",
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
    node_netns: Path | None
    spread_s: float
    repair: str
    taint: "Taint | None"
    no_status: bool


def cluster_options(command: Command) -> Command:
    """The command gets the fields of `ClusterOptions`; `cluster_of` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def cluster_of(given: ClusterOptions) -> "ClusterSettings | None":
    """None: no API server is asked. Raises UsageError for contradictions, ClickException for what cannot be used."""
    if not given.kubernetes:
        if given.node_netns is not None:
            raise click.UsageError("--node-netns needs --kubernetes: kubelet probes its own pods alone")
        if given.kubeconfig is not None or given.context is not None or given.marks:
            raise click.UsageError("--kubeconfig, --context and --select need --kubernetes")
        return None
    from agent.pods.selection import OURS, Selection
    from agent.settings import ClusterSettings

    access = access_of(given.kubeconfig, given.context)
    selection = Selection(tuple(dict.fromkeys((OURS, *given.marks))), frozenset(given.excluded))
    node_name = given.node_name or socket.gethostname().lower()
    return ClusterSettings(
        access,
        node_name,
        selection,
        _cni(given),
        given.proc,
        given.spread_s,
        tells=not given.no_status,
        node_netns=given.node_netns,
        deletes_pods=given.repair == _DELETE_POD,
        taint=given.taint,
    )


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
