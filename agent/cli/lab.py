"""`headgate lab`: a throw-away node on this machine for playing, tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from agent.lab import load as lab_load
from agent.lab import namespaces, processes, state
from agent.lab.errors import LabError
from agent.lab.node import Lab
from agent.lab.spec import default_spec, load_spec
from agent.lab.state import DEFAULT_NAME, LabPaths

_NAME = click.option("--name", default=DEFAULT_NAME, show_default=True, help="Which lab; several live side by side.")
_OUTPUT = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)


@click.group()
def lab() -> None:
    """A throw-away node: network namespaces as pods, real servers, agent and proxy. Needs root."""


@lab.command()
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path), help="Lab file (default: client, web-v1, web-v2)."
)
@click.option("--bare", is_flag=True, help="Only network and servers: no agent, no proxy.")
@_NAME
def up(file: Path | None, bare: bool, name: str) -> None:
    """Build a lab and leave it running."""
    try:
        built = Lab(load_spec(file) if file else default_spec(), name=name, owned=False)
        built.up()
        try:
            if not bare:
                _say("the node is up; starting agent and proxy")
                built.start()
        except BaseException:
            built.down()
            raise
    except LabError as error:
        raise click.ClickException(str(error)) from error
    for pod in built.pods:
        click.echo(f"{pod.name:<20} {pod.address4 or '-'!s:<14} {pod.address6 or '-'}")
    option = "" if name == DEFAULT_NAME else f" --name {name}"
    example = "headgate pods" if file else "curl -s http://10.96.0.10/"
    _say(f"call: headgate lab run{option} {built.pods[0].name} -- {example}")
    _say(f"end:  headgate lab down{option}")


@lab.command(context_settings={"ignore_unknown_options": True})
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_NAME
def run(pod: str, command: tuple[str, ...], name: str) -> None:
    """Run COMMAND in POD (`node` is the node itself); its exit status is this one's."""
    try:
        paths = LabPaths(name)
        netns = paths.pod_netns(pod)
        if not netns.path.exists():
            pods = ", ".join(_pod_names(paths)) or "none: headgate lab up"
            raise LabError(f"lab {name!r} has no pod {pod!r}; there are: {pods}")
        search = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"  # so that `headgate` is this one
        environment = {**os.environ, "PATH": search, state.MARKER: name, "HEADGATE_RUN_DIR": str(paths.run)}
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the command's own
        child = netns.popen(command, env=environment, restore_signals=True, preexec_fn=_default_interrupt)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        click.echo(f"Error: {command[0]}: {error.strerror}", err=True)
        sys.exit(127)  # as a shell says it
    status = child.wait()
    sys.exit(status if status >= 0 else 128 - status)


@lab.command()
@_NAME
def down(name: str) -> None:
    """End and remove a lab, also one whose `lab up` has crashed."""
    try:
        paths = LabPaths(name)
        there = paths.exists()
        state.remove(paths)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    _say(f"lab {name!r} is removed" if there else f"there is no lab {name!r}")


@lab.command()
@_OUTPUT
def status(output: str) -> None:
    """The labs of this machine, their pods and processes."""
    labs = [_facts(paths) for paths in state.known()]
    if output == "json":
        click.echo(json.dumps({"labs": labs}))
        return
    if not labs:
        click.echo("no lab is up")
    for facts in labs:
        click.echo(f"{facts['name']}: pods {', '.join(facts['pods']) or '-'}; logs in {facts['logs']}")
        for process in facts["processes"]:
            click.echo(
                f"  {process['name']:<24} {process['pid'] or '-':>8} {'running' if process['running'] else 'ended'}"
            )


@lab.command()
@click.option("--url", "urls", multiple=True, required=True, help="http://ADDRESS[:PORT]/PATH; several take turns.")
@click.option("--connections", type=click.IntRange(1, 10_000), default=8, show_default=True)
@click.option("--requests", type=click.IntRange(1), default=2000, show_default=True, help="At most so many in all.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True)
@click.option(
    "--ends",
    type=click.Choice([way.value for way in lab_load.Ends]),
    default=lab_load.Ends.KEPT.value,
    show_default=True,
    help="Whether connections are kept, or serve one request and are ended by server or client first.",
)
@click.option(
    "--per-s", type=click.FloatRange(0, min_open=True), help="Requests that begin in a second, answered or not."
)
@click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), default=lab_load.REQUEST_TIMEOUT_S, show_default=True
)
@click.option("--control", is_flag=True, help="Read `phase NAME` and `stop` from standard input; end with it.")
def load(
    urls: tuple[str, ...],
    connections: int,
    requests: int,
    seconds: float,
    ends: str,
    per_s: float | None,
    timeout_s: float,
    control: bool,
) -> None:
    """An HTTP load from where it is started; JSON lines, the result last. Exit 1 when a request failed."""
    try:
        made = lab_load.Load(
            [lab_load.target(url) for url in urls],
            connections=connections,
            requests=requests,
            seconds=seconds,
            shape=lab_load.Shape(lab_load.Ends(ends), per_s, timeout_s),
        )
        result = made.run(_emit if control else _quiet, sys.stdin.fileno() if control else None)
    except LabError as error:
        raise click.ClickException(str(error)) from error
    _emit(result)
    sys.exit(1 if result["all"]["failed"] else 0)


def _facts(paths: LabPaths) -> dict[str, Any]:
    files = sorted(paths.pids.iterdir()) if paths.pids.is_dir() else []
    remembered = [(file.name, processes.recall(file)) for file in files]
    return {
        "name": paths.name,
        "pods": _pod_names(paths),
        "logs": str(paths.logs),
        "run_directory": str(paths.run),
        "processes": [
            {"name": name, "pid": identity.pid if identity else None, "running": processes.alive(identity)}
            for name, identity in remembered
        ],
    }


def _pod_names(paths: LabPaths) -> list[str]:
    names = (netns.name.removeprefix(paths.prefix) for netns in namespaces.with_prefix(paths.prefix))
    return [name for name in names if name != "node"]


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _emit(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _quiet(event: dict[str, Any]) -> None:
    """Without --control only the result is wanted."""


def _say(text: str) -> None:
    click.echo(text, err=True)
