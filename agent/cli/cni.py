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
def remove(conf_dir: Path, bin_dir: Path, own_conf: str) -> None:
    """Take our plugin out of every configuration, and its program away: the last step of an uninstallation, after the
    agents are gone, for they would put it back."""
    from agent.chaining.conflist import BadConflist, Chained
    from agent.chaining.node import NodeChain, NodeDirectories

    chain = NodeChain(NodeDirectories(conf_dir, bin_dir, bin_dir, own_conf), Chained("", ()))
    try:
        done = chain.remove()
    except (BadConflist, OSError) as error:
        raise click.ClickException(printable(str(error), 400)) from error
    for line in done:
        click.echo(printable(line, 400))
    if not done:
        click.echo(f"nothing of ours in {conf_dir} and {bin_dir}", err=True)
