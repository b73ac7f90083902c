"""`headgate inject`: manifests with a sidecar in them, or without it again. Needs no Linux, no root and no cluster."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from agent.cli.access import access_of, access_options
from agent.inject.manifests import (
    BOM,
    Done,
    InvalidInput,
    Manifests,
    Outcome,
    Surroundings,
    inject,
    levels_in,
    namespaces_in,
    read,
    uninject,
)
from agent.inject.template import BACKENDS, InvalidTemplate, Template
from agent.manifests.documents import IMAGE
from agent.printable import printable

_NATIVE_SINCE: Final = (1, 29)
"""KEP-753: SidecarContainers is on by default."""
_VERSION: Final = re.compile(r"v?([0-9]{1,3})\.([0-9]{1,3})(?:[.+-].{0,40})?")
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
"""Of a directory's files, as kubectl has it."""
_MAX_BYTES: Final = 64 << 20
"""Of one file: 40 times what etcd takes for one object."""
_STDIN: Final = "-"
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class _Input:
    name: str
    manifests: Manifests


def _version(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = _VERSION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{printable(value, 40)} is no version: give one like 1.30")
    return int(found[1]), int(found[2])


@click.command("inject")
@click.argument("paths", nargs=-1, metavar="[FILE]...")
@click.option("-f", "--filename", "named", multiple=True, metavar="FILE", help="A file, a directory, or - (stdin).")
@click.option("-R", "--recursive", is_flag=True, help="Directories with those in them.")
@click.option("--uninject", "removes", is_flag=True, help="Take out what was added, and nothing else.")
@click.option("--image", default=IMAGE, show_default=True, help="With a tag or a digest.")
@click.option(
    "--kubernetes-version",
    "version",
    callback=_version,
    help="Of the cluster: before 1.29 the sidecar is a container beside the application's. Else the cluster is asked, "
    "if --kubeconfig or --context is given, and taken for a newer one if not.",
)
@click.option("--config-map", default="", help="With policy, in the pods' namespace; else everything passes.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="Of the rules; iptables-legacy needs NET_RAW, too.",
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Of what names none.")
@access_options
def inject_command(
    paths: tuple[str, ...],
    named: tuple[str, ...],
    recursive: bool,
    removes: bool,
    image: str,
    version: tuple[int, int] | None,
    config_map: str,
    backend: str,
    namespace: str,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Add a sidecar and the init container with its rules to all that makes pods, and print the rest as it is: for
    `kubectl apply -f -`. Comments, order and spelling are kept. What was done is said on standard error.

    A cluster is asked (its version, its namespaces' pod security) only if --kubeconfig or --context is given.

    Exit status: 0 done, perhaps with warnings; 1 not done, and nothing printed.
    """
    inputs = _inputs((*paths, *named), recursive=recursive)
    if removes:
        _finish(inputs, uninject, "uninjected")
        return
    levels = {name: level for one in inputs for name, level in levels_in(one.manifests).items()}
    if kubeconfig is not None or context is not None:
        from agent.cli.inject_cluster import ask  # aiohttp takes 200 ms, and constants that only Linux has

        wanted = {name for one in inputs for name in namespaces_in(one.manifests, namespace)} - levels.keys()
        told = ask(access_of(kubeconfig, context), sorted(wanted))
        levels |= told.levels
        version = version or told.version
        for problem in told.problems:
            _say(f"warning: {problem}")
    template = _template(image, backend, config_map, native=version is None or version >= _NATIVE_SINCE)
    around = Surroundings(namespace, levels)
    _finish(inputs, lambda manifests: inject(manifests, template, around), "injected")


def _template(image: str, backend: str, config_map: str, *, native: bool) -> Template:
    try:
        return Template(image, native, backend, config_map)
    except InvalidTemplate as error:
        raise click.UsageError(str(error)) from error


# ── In ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _inputs(names: tuple[str, ...], *, recursive: bool) -> list[_Input]:
    if not names and sys.stdin.isatty():
        raise click.UsageError("no input: give files, or - for standard input")
    if names.count(_STDIN) > 1:
        raise click.UsageError("standard input (-) can be read once")
    files = [file for name in names or (_STDIN,) for file in _files(name, recursive=recursive)]
    return [_Input(printable(name, _SHOWN), _manifests(name)) for name in files]


def _files(name: str, *, recursive: bool) -> list[str]:
    path = Path(name)
    if name == _STDIN or not path.is_dir():
        return [name]
    try:
        found = sorted(path.rglob("*") if recursive else path.iterdir())
        files = [str(file) for file in found if file.suffix in _SUFFIXES and file.is_file()]
    except OSError as error:
        raise _failed(name, f"cannot be read: {error.strerror or error}") from error
    if not files:
        raise _failed(name, "the directory holds no .yaml, .yml or .json file" + ("" if recursive else "; -R?"))
    return files


def _manifests(name: str) -> Manifests:
    try:
        if name == _STDIN:
            content = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise _failed(name, f"is larger than {_MAX_BYTES >> 20} MiB: split it")
        return read(content.decode())
    except OSError as error:
        raise _failed(name, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _failed(name, f"line {line}: is no UTF-8: save it so, without which kubectl reads it no more") from error
    except InvalidInput as error:
        raise _failed(name, str(error)) from error


# ── Out ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _finish(inputs: list[_Input], work: Callable[[Manifests], Done], word: str) -> None:
    """Everything is done before anything is printed: what reads from a pipe must not get a part."""
    texts: list[str] = []
    said: list[str] = []
    for one in inputs:
        try:
            done = work(one.manifests)
        except InvalidInput as error:
            raise _failed(one.name, str(error)) from error
        texts.append(done.text)
        said += _told(one.name, done, word)
    for line in said:
        _say(line)
    try:
        sys.stdout.buffer.write(_together(texts).encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # click ends without a word, as a pipe's writer does
    except OSError as error:
        raise _failed("standard output", f"cannot be written: {error.strerror or error}; use none of it") from error


def _told(name: str, done: Done, word: str) -> Iterator[str]:
    words = {Outcome.CHANGED: word, Outcome.UNCHANGED: "as it should be already", Outcome.SKIPPED: "left as it is"}
    for report in done.reports:
        why = f": {printable(report.why, _SHOWN)}" if report.why else ""
        yield f"{name}: {report.workload}: {words[report.outcome]}{why}"
    warnings = dict.fromkeys(warning for report in done.reports for warning in report.warnings)
    yield from (f"{name}: warning: {warning}" for warning in warnings)
    if not done.reports:
        yield f"{name}: nothing in it makes pods"


def _together(texts: list[str]) -> str:
    """Several files as one stream of documents; one file as it is, to the byte."""
    joined = texts[0]
    for text in texts[1:]:
        bare = text.removeprefix(BOM)
        ended = joined if joined.endswith("\n") or not joined else f"{joined}\n"
        joined = ended + (bare if bare.startswith("---") else f"---\n{bare}")
    return joined


def _say(line: str) -> None:
    click.echo(line, err=True)


def _failed(name: str, reason: str) -> click.ClickException:
    return click.ClickException(f"{printable(name, _SHOWN)}: {reason}")
