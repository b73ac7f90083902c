"""`headgate capture`: a pod's packets, each with what translation hides of it."""

import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.client import ask, pod_path, run_dir_option
from agent.cli.interrupt import interrupts
from agent.cli.packet_filter import filter_of, filter_options, for_option
from agent.cli.target import Namespace, failing, namespace_of, namespace_options, pod_argument
from agent.printable import printable

if TYPE_CHECKING:
    from agent.capture.output import Output
    from agent.capture.run import Capture
    from agent.tracing.filter import Filter

_SNAPLEN = 262_144


@click.command("capture")
@pod_argument
@namespace_options
@run_dir_option
@filter_options
@for_option
@click.option("--count", type=click.IntRange(1), help="End after so many packets.")
@click.option(
    "--snaplen", type=click.IntRange(1, _SNAPLEN), default=_SNAPLEN, show_default=True, help="Bytes of each packet."
)
@click.option(
    "-w", "--write", "file", metavar="FILE", help="Write pcapng to FILE, overwriting it; - is standard output."
)
def capture(
    pod: tuple[str | None, str] | None,
    netns: Path | None,
    own: bool,
    run_dir: Path,
    for_s: float,
    count: int | None,
    snaplen: int,
    file: str | None,
    **meant: Any,
) -> None:
    """Capture the packets of a pod on all its interfaces, lo too. A packet of a translated connection has a comment:
    the destination before NAT, and of an answer the source. With -w as pcapng, for Wireshark and tshark:

    headgate capture default/web -w - | wireshark -k -i -"""
    wanted = filter_of(**meant)
    if file == "-" and sys.stdout.isatty():
        raise click.UsageError("-w - writes to a terminal: pipe it, as in `… -w - | wireshark -k -i -`")
    where = namespace_of(pod, netns, own)
    name = where.name if where is not None else ""
    if where is None:
        assert pod is not None
        path = pod_path(run_dir, pod)
        where, name = Namespace(Path(ask(run_dir, f"/pods/{path}")["netns"])), f"pod {path}"
    with failing(where), suppress(BrokenPipeError):  # who reads the pipe has seen enough
        _capture(where, name, wanted, for_s, count or 0, snaplen, file)


def _capture(
    where: Namespace, name: str, wanted: "Filter", for_s: float, count: int, snaplen: int, file: str | None
) -> None:
    from agent.capture.run import Capture

    # The file comes second: where the namespace refuses, what the file had stays.
    with interrupts() as stopped, where.call(Capture, wanted, snaplen) as running:
        output = _output(file, snaplen, name)
        click.echo(f"capturing in {printable(name)} for {for_s:g} s", err=True)
        try:
            running.run(output, time.monotonic() + for_s, count, stopped)
        finally:
            output.close(running.lost)
        _tell(running)


def _output(file: str | None, snaplen: int, name: str) -> "Output":
    from agent.capture.output import Lines, PcapngFile

    if file is None:
        return Lines(click.echo)
    try:
        return PcapngFile(file, snaplen, f"headgate capture {version('headgate')}", printable(name))
    except OSError as error:
        raise click.ClickException(f"{printable(file)}: {error.strerror}") from error


def _tell(running: "Capture") -> None:
    for interface in sorted(running.skipped):
        click.echo(f"not captured: {printable(interface)}, a link that pcapng readers do not know here", err=True)
    if running.unnamed:
        unnamed = f"{running.unnamed} packets of an interface whose name is no UTF-8: rename it (ip link set … name …)"
        click.echo(f"not captured: {unnamed}", err=True)
    if running.lost:
        click.echo(f"lost: {running.lost} packets found no room: narrow what is captured with --snaplen", err=True)
    if running.unheard:
        click.echo(f"lost: {running.unheard} new connections were not heard of; comments may be missing", err=True)
    whole = "" if running.lost or running.unnamed else ", nothing lost"
    click.echo(f"{running.written} packets captured{whole}", err=True)
