"""The local agent, asked over its admin socket; and how verbs print what it says."""

import json
import socket
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from agent.printable import printable
from proxy.api.constants import ADMIN_SOCKET, RUN_DIRECTORY

TIMEOUT_S: Final = 20.0
"""Above what the agent allows a verification (agent.supervisor.admin: 15 s)."""

run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=RUN_DIRECTORY,
    show_default=True,
    envvar="HEADGATE_RUN_DIR",
    help="Directory of the agent's sockets.",
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)

wide_output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json", "yaml"]), default="table", show_default=True
)


class PodName(click.ParamType[tuple[str | None, str]]):
    """`NAME`, `NAMESPACE/NAME` or `NAME.NAMESPACE`, as (namespace or None, name)."""

    name = "POD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, str]:
        if isinstance(value, tuple):
            return value
        namespace, slash, name = str(value).partition("/")
        if not slash:
            name, dot, namespace = str(value).rpartition(".")
            if not dot:
                return None, str(value)
        if not namespace or not name or "/" in name:
            self.fail(f"{printable(str(value))!r}: give [NAMESPACE/]NAME or NAME.NAMESPACE", param, ctx)
        return namespace, name


def ask(run_dir: Path, path: str, *, method: str = "GET") -> Any:
    """The agent's JSON. ClickException (exit 1) when it does not answer, or with its own words when it refuses."""
    socket_path = run_dir / ADMIN_SOCKET
    connection = HTTPConnection("agent", timeout=TIMEOUT_S)
    try:
        connection.sock = _connect(socket_path)
        connection.request(method, path)
        answer = connection.getresponse()
        status, body = answer.status, json.loads(answer.read())
    except FileNotFoundError as error:
        raise click.ClickException(f"no agent at {socket_path}: is `headgate agent` running? see --run-dir") from error
    except (OSError, HTTPException, ValueError) as error:
        raise click.ClickException(f"agent at {socket_path}: {error}") from error
    finally:
        connection.close()
    if status != 200:
        raise click.ClickException(printable(str(body.get("error", body)), 1000))
    return body


def pod_path(run_dir: Path, pod: tuple[str | None, str]) -> str:
    """`NAMESPACE/NAME` for a path of the agent. A bare name is looked up: it must be one pod's only."""
    namespace, name = pod
    if namespace is None:
        found = sorted(known["namespace"] for known in ask(run_dir, "/pods")["pods"] if known["name"] == name)
        if len(found) > 1:
            raise click.UsageError(f"{name} is in several namespaces ({', '.join(found)}): give NAMESPACE/{name}")
        namespace = found[0] if found else "default"
    return f"{quote(namespace, safe='')}/{quote(name, safe='')}"


def show(value: Any, output: str) -> None:
    """`json` or `yaml`."""
    if output == "json":
        click.echo(json.dumps(value, indent=2))
        return
    import yaml  # only who asks for it pays for it

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=False), nl=False)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell, two blanks between, the last one free; every cell made printable."""
    cells = [list(head), *([printable(cell, 1000) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head) - 1)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection
