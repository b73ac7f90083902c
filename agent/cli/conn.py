"""`headgate conn`: who talks to whom, by which listener, on which path; and what goes past the proxy, and why."""

import gc
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.client import ask, pod_path, run_dir_option, show, table, wide_output_option
from agent.cli.target import Namespace, failing, namespace_of, pod_argument
from agent.printable import printable

if TYPE_CHECKING:
    from agent.connections.filters import Filter, Peer
    from agent.connections.gather import Found, Inside

_POD = tuple[str | None, str]
_AT_ONCE = 500
"""Lines of JSON in one write."""
_WAYS = ("outbound", "inbound", "local")
_PATHS = ("http", "tcp", "detecting", "closing", "idle", "redirect", "proxy", "direct")


class _PeerType(click.ParamType["Peer"]):
    name = "[ADDRESS[/LENGTH]][:PORT]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Peer":
        from agent.connections.filters import peer_of

        try:
            return peer_of(str(value))
        except ValueError as error:
            self.fail(f"{printable(str(value))!r}: {error}", param, ctx)


@click.command()
@pod_argument
@click.option(
    "--netns",
    type=click.Path(path_type=Path),
    help="Look into this network namespace: /run/netns/NAME or /proc/PID/ns/net.",
)
@click.option("--self", "own", is_flag=True, help="Look into the network namespace that this command runs in.")
@run_dir_option
@wide_output_option
@click.option("--unsteered", is_flag=True, help="Only what goes past the proxy and might have been its.")
@click.option("--from", "source", type=_PeerType(), help="Only what was opened from there.")
@click.option("--to", "destination", type=_PeerType(), help="Only what was opened to there, before any redirect.")
@click.option("--port", type=click.IntRange(1, 65535), help="Only what has this port at an end, or as listener.")
@click.option("--proto", "protocol", type=click.Choice(["tcp", "udp"]), help="Only TCP, or only UDP.")
@click.option("--path", type=click.Choice(_PATHS), help="Only what goes this way.")
@click.option("--direction", type=click.Choice(_WAYS), help="Only what was opened so.")
@click.option("--pid", type=click.IntRange(1), help="Only what this process holds an end of.")
def conn(pod: _POD | None, netns: Path | None, own: bool, run_dir: Path, output: str, **wanted: Any) -> None:
    """Show the living connections of POD, of another network namespace, or of all pods of the node's agent: who opened
    them and to where, the listener they were led to, what the proxy makes of them, and the process. What goes direct is
    told with the reason."""
    wishes = _filter(wanted)
    where = namespace_of(pod, netns, own)
    if netns is None and not own:
        where = None
    with _without_collection():
        _print(_found(pod, where, run_dir), wishes, output, many=pod is None and where is None)


def _found(pod: _POD | None, where: Namespace | None, run_dir: Path) -> "Found":
    """`where` None, and no pod: of all pods of the agent."""
    from agent.connections import gather

    if where is None and pod is None:
        return _of_all(run_dir)
    name = ""
    if pod is not None:
        name = pod_path(run_dir, pod)
        netns = ask(run_dir, f"/pods/{name}")["netns"]
        if not netns:
            raise click.ClickException(f"pod {printable(name)} has no network namespace yet: see `headgate pods`")
        where = Namespace(Path(netns))
    assert where is not None
    with failing(where):
        return gather.look(name, where.call, run_dir)


@contextmanager
def _without_collection() -> Iterator[None]:
    """30,000 connections are a million objects, none of which is garbage before the end."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _filter(wanted: dict[str, Any]) -> "Filter":
    from agent.connections.filters import Filter
    from agent.connections.values import Path as Carried
    from agent.connections.values import Way

    way, path = wanted.pop("direction"), wanted.pop("path")
    return Filter(**wanted, way=None if way is None else Way(way), path=None if path is None else Carried(path))


def _of_all(run_dir: Path) -> "Found":
    from agent.connections import gather

    pods = [pod for pod in ask(run_dir, "/pods")["pods"] if pod["netns"]]
    places = [(f"{pod['namespace']}/{pod['name']}", _inside(Path(pod["netns"]))) for pod in pods]
    return gather.look_at_all(places, run_dir)


def _inside(netns: Path) -> "Inside":
    """Of one pod among many: that it is gone ends nothing."""
    from agent.connections.gather import Unreachable

    where = Namespace(netns)

    def call(function: Callable[..., Any], *args: Any) -> Any:
        try:
            return where.call(function, *args)
        except click.ClickException as error:
            raise Unreachable(error.message) from error

    return call


def _print(found: "Found", wishes: "Filter", output: str, *, many: bool) -> None:
    from agent.connections import gather, view

    shown = [(name, one) for name, one in gather.all_connections(found) if wishes.holds(one)]
    problems = list(_problems(found))
    if output == "json":
        _print_json(({"pod": name or None, **view.as_json(one)} for name, one in shown), problems)
    elif output == "yaml":
        told = [{"pod": name or None, **view.as_json(one)} for name, one in shown]
        show({"connections": told, "problems": problems}, output)
    elif shown:
        wide = output == "wide"
        head = view.WIDE_HEAD if wide else view.HEAD
        rows = [((name,) if many else ()) + view.row(one, wide=wide) for name, one in shown]
        click.echo(table(("POD", *head) if many else head, rows))
    else:
        click.echo("no connection", err=True)
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)


def _print_json(told: Iterable[dict[str, Any]], problems: list[str]) -> None:
    """A line a connection, some at a time: of 30,000 the whole as one value takes 160 MB and five seconds more."""
    click.echo('{"connections": [', nl=False)
    waiting, comma = list[str](), "\n"
    for one in told:
        waiting.append(f"{comma}  {json.dumps(one)}")
        comma = ",\n"
        if len(waiting) == _AT_ONCE:
            click.echo("".join(waiting), nl=False)
            waiting.clear()
    click.echo(f'{"".join(waiting)}\n], "problems": {json.dumps(problems)}}}')


def _problems(found: "Found") -> Iterable[str]:
    for place in found.places:
        for problem in place.problems:
            yield printable(f"{place.name}: {problem}" if place.name else problem, 1000)
    for problem in found.problems:
        yield printable(problem, 1000)
