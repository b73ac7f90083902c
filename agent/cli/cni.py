"""`headgate cni`: our plugin in the node's CNI configuration. The agent puts it there and keeps it there."""

from pathlib import Path

import click

from agent.printable import printable


@click.group()
def cni() -> None:
    """Our plugin in the node's CNI configuration."""


@cni.command()
@click.option("--conf-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), default="/etc/cni/net.d")
@click.option("--bin-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), default="/opt/cni/bin")
@click.option("--own-conf", default="", help="The list of our own, if the agent was told to make one.")
@click.option(
    "--proc",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/proc"),
    show_default=True,
    envvar="HEADGATE_PROC",
    help="Where the node's processes are seen: whether its runtime is cri-o.",
)
def remove(conf_dir: Path, bin_dir: Path, own_conf: str, proc: Path) -> None:
    """Take our plugin out of every configuration, and its program away: the last step of an uninstallation, after the
    agents are gone, for they would put it back.

    cri-o goes by the chain that a pod was started with: there the program stays, or no such pod could end."""
    from agent.chaining.conflist import PLUGIN, BadConflist, Chained
    from agent.chaining.node import NodeChain, NodeDirectories
    from agent.chaining.runtimes import remembers_chains

    chain = NodeChain(NodeDirectories(conf_dir, bin_dir, bin_dir, own_conf), Chained("", ()))
    try:
        keep = remembers_chains(proc)
        done = chain.remove(keep_program=keep)
    except BadConflist as error:
        raise click.ClickException(printable(str(error), 400)) from error
    except OSError as error:
        raise click.ClickException(printable(f"{error.filename or conf_dir}: {error.strerror}", 400)) from error
    for line in done:
        click.echo(printable(line, 400))
    program = bin_dir / PLUGIN
    if keep and program.exists():
        click.echo(
            f"left {printable(str(program), 400)}: cri-o asks it at the end of each pod that was started with it; when "
            "the node has started anew there is none, and it can be deleted",
            err=True,
        )
    if not done:
        click.echo(f"nothing of ours in {conf_dir} and {bin_dir}", err=True)
