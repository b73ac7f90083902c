"""`headgate init`: rules in one network namespace, and gone; in headgate's own words or in a peer's."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

import click
from click.core import ParameterSource

from agent.cli.client import table
from agent.cli.steering import bad_option, steering_options
from agent.cli.target import Namespace
from agent.init import istio as istio_words
from agent.init import kuma as kuma_words
from agent.init import linkerd as linkerd_words
from agent.init.apply import InitFailed, dry_run, perform, steering_here
from agent.init.argv import Flag, Takes
from agent.init.kuma_config import MAX_CHARACTERS, ConfigText
from agent.init.kuma_flags import CONFIG_FILE
from agent.init.kuma_flags import FLAGS as KUMA_FLAGS
from agent.init.places import surroundings
from agent.init.request import Action, Families, InitRequest, Refused, Surroundings, Validation
from agent.kernel.backends import Backend
from agent.kernel.refused import KernelRefused
from agent.plan import InvalidPlan, IPFamily, PlanSettings
from agent.plan.render.document import OUTPUTS
from agent.plan.steering import Steering
from agent.printable import printable

_WRONG_USAGE: Final = 2
_AGAIN_S: Final = 0.2
_PEERS: Final = {
    "context_settings": {"ignore_unknown_options": True, "help_option_names": []},
    "add_help_option": False,
}
_WORDS = click.argument("words", nargs=-1, type=click.UNPROCESSED)


@dataclass(frozen=True, slots=True)
class _Common:
    """What may stand before a peer's word, and counts for it, too."""

    netns: Path | None
    backend: Backend | None
    dry_run: bool
    output: str | None
    cleanup: bool
    force: bool
    validation: Validation | None


@click.group(invoke_without_command=True)
@click.option(
    "--netns",
    type=click.Path(path_type=Path),
    envvar="HEADGATE_NETNS",
    help="The network namespace (a name below /run/netns by its path, /proc/PID/ns/net); else the one this runs in.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", *(backend.value for backend in Backend)]),
    default="auto",
    show_default=True,
    envvar="HEADGATE_BACKEND",
    help="What holds the rules; auto: what holds rules of ours already, else the first that works.",
)
@click.option("--dry-run", "only_print", is_flag=True, help="Print the plan, change nothing.")
@click.option("-o", "--output", type=click.Choice(OUTPUTS), help="With --dry-run: as what. Else as the backend has it.")
@click.option("--cleanup", is_flag=True, help="Take headgate's rules away.")
@click.option("--force", is_flag=True, help="Also where the namespace is a whole machine's, not a pod's.")
@click.option("--verify", is_flag=True, envvar="HEADGATE_INIT_VERIFY", help="Then try the rules: `rules verify`.")
@click.option(
    "--fail-exit-code",
    type=click.IntRange(1, 255),
    default=1,
    show_default=True,
    envvar="HEADGATE_FAIL_EXIT_CODE",
    help="Exit status when --verify fails (istio-cni looks for 126, linkerd-cni for 95).",
)
@steering_options()
@click.pass_context
def init(
    context: click.Context,
    netns: Path | None,
    backend: str,
    only_print: bool,
    output: str | None,
    cleanup: bool,
    force: bool,
    verify: bool,
    fail_exit_code: int,
    steering: Steering,
    settings: PlanSettings,
) -> None:
    """Install the redirect rules for one sidecar in this pod's network namespace, then exit.

    A second run finds them in force and touches nothing. Needs CAP_NET_ADMIN (and CAP_NET_RAW for iptables), no
    writable file. istio, linkerd and kuma take these meshes' own command lines, with --netns, --backend, --dry-run, -o,
    --cleanup, --force, --verify and --fail-exit-code before that word.

    Exit status: 0 done, 1 not done, 2 wrong usage, --fail-exit-code when the rules do not hold.
    """
    chosen = None if backend == "auto" else Backend(backend)
    validation = Validation(fail_exit_code) if verify else None
    common = _Common(netns, chosen, only_print, output, cleanup, force, validation)
    context.obj = common
    if context.invoked_subcommand is not None:
        _refuse_own_words(context)
        return
    request = InitRequest(steering, settings, families=_families(steering), validation=validation)
    _run(request, common, bad_option)


@init.command(**_PEERS)
@_WORDS
@click.pass_obj
def istio(common: _Common, words: tuple[str, ...]) -> None:
    """Take istio-iptables' command line and environment."""
    if not _helped(words, istio_words.PROGRAM, istio_words.FLAGS):
        _run_peers(lambda around: istio_words.request(words, os.environ, around), common)


@init.command(**_PEERS)
@_WORDS
@click.pass_obj
def linkerd(common: _Common, words: tuple[str, ...]) -> None:
    """Take linkerd2-proxy-init's command line."""
    if not _helped(words, linkerd_words.PROGRAM, linkerd_words.FLAGS):
        _run_peers(lambda around: linkerd_words.request(words, around), common)


@init.command(**_PEERS)
@_WORDS
@click.pass_obj
def kuma(common: _Common, words: tuple[str, ...]) -> None:
    """Take the command line of `kumactl install transparent-proxy`, its environment and configuration."""
    if not _helped(words, kuma_words.PROGRAM, KUMA_FLAGS):
        _run_peers(lambda around: kuma_words.request(words, os.environ, around, _config_texts(words)), common)


# ── What is asked ──────────────────────────────────────────────────────────────────────────────────────────────────
def _families(steering: Steering) -> Families:
    only = steering.families[0] if len(steering.families) == 1 else None
    return {None: Families.ALL, IPFamily.IPV4: Families.IPV4, IPFamily.IPV6: Families.IPV6}[only]


def _refuse_own_words(context: click.Context) -> None:
    """What is steered is the peer's command line to say."""
    common = {"netns", "backend", "only_print", "output", "cleanup", "force", "verify", "fail_exit_code"}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in common or source not in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            continue
        said = parameter.opts[0] if source is ParameterSource.COMMANDLINE else f"variable {parameter.envvar}"
        reason = f"does not go with {context.invoked_subcommand}: say it in that mesh's own words"
        raise click.BadParameter(reason, param_hint=said)


def _helped(words: Sequence[str], program: str, flags: Sequence[Flag]) -> bool:
    if not {"-h", "--help"} & set(words):
        return False
    rows = [(", ".join(_names(flag)), flag.fate.value, flag.how) for flag in flags]
    click.echo(f"{program}'s flags, variables and keys, and what becomes of each here:\n")
    click.echo(table(("FLAG", "", "HOW"), rows))
    return True


def _names(flag: Flag) -> list[str]:
    value = "" if flag.takes is Takes.SWITCH or not flag.name.startswith("-") else " VALUE"
    return [*([flag.short] if flag.short else []), f"{flag.name}{value}"]


def _config_texts(words: Sequence[str]) -> list[ConfigText]:
    found: list[ConfigText] = []
    for source in kuma_words.config_sources(words):
        if not kuma_words.is_path(source):
            found.append(source)
            continue
        where = f"{source.where} {source.text}"
        try:
            found.append(ConfigText(where, _read(source.text)))
        except FileNotFoundError:
            if source.where != CONFIG_FILE.name:
                raise Refused(source.where, source.text, "there is no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(source.where, source.text, f"cannot be read: {error}") from None
    return found


def _read(path: str) -> str:
    """One character more than is taken, so that too much is told from just enough."""
    if path == "-":
        return sys.stdin.read(MAX_CHARACTERS + 1)
    with Path(path).open(encoding="utf-8") as file:
        return file.read(MAX_CHARACTERS + 1)


# ── What is done ───────────────────────────────────────────────────────────────────────────────────────────────────
def _run_peers(wanted: Callable[[Surroundings], InitRequest], common: _Common) -> None:
    try:
        request = wanted(surroundings())
    except (Refused, InvalidPlan) as error:
        _wrong_usage(error)
    for note in request.notes:
        click.echo(printable(note, 1000), err=True)
    _run(request, common, lambda error: click.UsageError(str(error)))


def _run(request: InitRequest, common: _Common, told: Callable[[InvalidPlan], click.UsageError]) -> None:
    request = _with(request, common)
    if common.output is not None and not request.dry_run:
        raise click.UsageError("-o goes with --dry-run")
    place = Namespace(None if request.netns is None else Path(request.netns))
    try:
        if request.dry_run:
            click.echo(place.call(dry_run, request, common.output), nl=False)
            return
        done = place.call(perform, request, force=common.force)
        click.echo(printable(done.said, 1000))
        for note in done.notes:
            click.echo(printable(note, 1000), err=True)
        if request.validation is not None and request.action is not Action.REMOVE:
            place.call(_validate, request, request.validation)
    except InvalidPlan as error:
        raise told(error) from None
    except (InitFailed, KernelRefused) as error:
        raise click.ClickException(printable(str(error), 2000)) from error
    except OSError as error:
        raise click.ClickException(f"{place.name} cannot be read: {error.strerror or error}") from error


def _with(request: InitRequest, common: _Common) -> InitRequest:
    """What stands before the peer's word is the stronger."""
    return replace(
        request,
        action=Action.REMOVE if common.cleanup else request.action,
        backend=common.backend or request.backend,
        netns=str(common.netns) if common.netns is not None else request.netns,
        dry_run=common.dry_run or request.dry_run,
        validation=common.validation or request.validation,
    )


def _validate(request: InitRequest, validation: Validation) -> None:
    """Tried again until they hold, for as long as was said: another program may be installing them (CNI)."""
    from agent.verify import Result, verify  # its probes are needed by nobody else here

    until = time.monotonic() + validation.timeout_s
    report = verify(steering_here(request), request.settings)
    while not report.ok and time.monotonic() < until:
        time.sleep(_AGAIN_S)
        report = verify(steering_here(request), request.settings)
    if not report.ok:
        click.echo(
            f"Error: the rules do not hold: {printable(report.why_not, 1000)}; see `headgate rules verify`", err=True
        )
        sys.exit(validation.exit_code)
    good = sum(outcome.result is Result.OK for outcome in report.outcomes)
    click.echo(f"verified: {good} of {len(report.outcomes)} probes went where they should, in {report.seconds:.1f} s")


def _wrong_usage(error: ValueError) -> NoReturn:
    click.echo(f"Error: {printable(str(error), 1000)}", err=True)
    sys.exit(_WRONG_USAGE)
