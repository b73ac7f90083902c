"""`headgate rules plan` and `diff`: what a namespace is to hold, and what differs from it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agent.cli.client import ask, pod_path, run_dir_option, show, table
from agent.cli.steering import DEFAULT_PROXY_ID, MARK, OWNER, bad_option, steering_options
from agent.cli.target import Namespace, failing, namespace_of, namespace_options, pod_argument
from agent.kernel.refused import KernelRefused
from agent.plan import InvalidPlan, PlanSettings, RedirectPlan, Steering, plan_of
from agent.plan.steering import Owners
from agent.plan.words import parse_ids
from agent.printable import printable

_POD = tuple[str | None, str]
_FORMS = ("nft", "iptables")
_HEAD = ("CHAIN", "RULE", "MEANING")
_WIDE_HEAD = ("CHAIN", "RULE", "DOES", "MEANING")
AUTO = "auto"
_BACKENDS = (AUTO, "nft", "iptables-nft", "iptables-legacy")


# ── plan ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@click.command("plan")
@pod_argument
@run_dir_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "nft", "iptables", "json", "yaml"]),
    default="table",
    show_default=True,
    help="For people, as a script for nft(8), as text for iptables-restore(8), or for programs.",
)
@steering_options()
def plan(pod: _POD | None, run_dir: Path, output: str, steering: Steering, settings: PlanSettings) -> None:
    """Print which rules POD is to hold and why, and which of its annotations decided that. Without POD, the rules that
    the options ask for; needs no agent and touches nothing."""
    if pod is not None:
        if output in _FORMS:
            raise click.UsageError(f"-o {output} is of plans without POD: the agent tells rules, not scripts")
        _show_pods_plan(ask(run_dir, f"/plan/{pod_path(run_dir, pod)}"), output)
        return
    try:
        wanted = plan_of(steering, settings)
    except InvalidPlan as error:
        raise bad_option(error) from None
    _show_plan(wanted, steering, output)


def _show_plan(wanted: RedirectPlan, steering: Steering, output: str) -> None:
    import json

    from agent.plan.render.document import plan_text
    from agent.plan.render.nft import chain_of, rule_expression

    if output in _FORMS:
        click.echo(plan_text(wanted, output, steering.families), nl=False)
        return
    if output in ("json", "yaml"):
        show(json.loads(plan_text(wanted, "json", steering.families)), output)
        return
    rules = [
        (chain_of(rule), rule.rule_id, *((rule_expression(rule),) if output == "wide" else ()), rule.meaning)
        for rule in wanted.all_rules
    ]
    click.echo(table(_WIDE_HEAD if output == "wide" else _HEAD, rules))
    path = wanted.return_path
    if path.families:
        click.echo(f"\nip rule {path.preference}: fwmark {path.mark:#x}/{path.mask:#x} lookup {path.table}")
        click.echo(f"ip route: local default dev lo table {path.table}")
    for address in wanted.loopback_addresses:
        click.echo(f"address {address}/128 on lo")


def _show_pods_plan(answer: dict[str, Any], output: str) -> None:
    if output in ("json", "yaml"):
        show(answer, output)
    else:
        reason = f" ({printable(answer['reason'], 1000)})" if answer["reason"] else ""
        click.echo(f"pod {printable(answer['pod'])}: {answer['state']}{reason}\n")
        rules = [
            (rule["chain"], rule["id"], *((rule["rule"],) if output == "wide" else ()), rule["meaning"])
            for rule in answer["rules"]
        ]
        click.echo(table(_WIDE_HEAD if output == "wide" else _HEAD, rules))
        origins = [_origin(origin) for origin in answer["origins"]]
        if origins:
            click.echo(f"\n{table(('WHAT', 'DECIDED BY', 'VALUE', 'OVERRULED'), origins)}")
        for noted in answer["noted"]:
            click.echo(printable(f"noted: {noted['key']}: {noted['value']}: {noted['reason']}", 1000), err=True)
    if answer["error"]:
        raise click.ClickException(f"what the pod asks for cannot be given: {printable(answer['error'], 1000)}")


def _origin(origin: dict[str, Any]) -> tuple[str, ...]:
    overruled = "; ".join(f"{key}: {value}" for key, value in origin["overruled"])
    return (origin["what"], origin["key"], origin["value"], overruled or "-")


# ── diff ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@click.command("diff")
@pod_argument
@namespace_options
@run_dir_option
@click.option("--fix", is_flag=True, help="Put the plan in force. Living connections go on.")
@click.option(
    "--backend",
    type=click.Choice(_BACKENDS),
    default=AUTO,
    show_default=True,
    help="Whose rules are compared; auto: whose are there, else what would be used.",
)
@click.option("--force", is_flag=True, help="With --fix, also in a node's own network namespace.")
@steering_options()
def diff(
    pod: _POD | None,
    netns: Path | None,
    own: bool,
    run_dir: Path,
    fix: bool,
    backend: str,
    force: bool,
    steering: Steering,
    settings: PlanSettings,
) -> None:
    """Say what the kernel holds otherwise than planned, in words; exit 1 when something differs. With POD, by the
    agent's plan; without, by the plan that the options ask for."""
    where = namespace_of(pod, netns, own)
    if where is None:
        assert pod is not None
        path = f"/rules/{pod_path(run_dir, pod)}/diff{'?fix=1' if fix else ''}"
        _tell_pods(ask(run_dir, path, method="POST"), fix=fix)
        return
    try:
        wanted = plan_of(steering, settings)
    except InvalidPlan as error:
        raise bad_option(error) from None
    with failing(where):
        if fix and not force:
            _refuse_node(where)
        changes = where.call(_compared, wanted, settings, None if backend == AUTO else backend, fix)
        if changes and not fix:
            hint(where, steering, settings)
    _tell(where.name, changes, fixed=fix)


def _compared(wanted: RedirectPlan, settings: PlanSettings, name: str | None, fix: bool) -> tuple[str, ...]:
    """What differs, in words; with `fix` it differs no longer."""
    from agent.kernel import backends
    from agent.kernel.backends import Backend

    backend = backends.choose(None if name is None else Backend(name)).backend
    changes = backends.changes(wanted, backend)
    others = sorted(other.value for other in backends.held() - {backend})
    changes += tuple(f"{other} holds rules of ours, too" for other in others)
    if changes and fix:
        backends.install(wanted, settings, backend)
        left = backends.changes(wanted, backend)
        if left:
            raise click.ClickException(
                f"put in force, and changed again by somebody: {printable('; '.join(left), 1000)}"
            )
    return changes


def hint(where: Namespace, steering: Steering, settings: PlanSettings) -> None:
    """Says so when the rules that are there are right, for a proxy of the other kind."""
    to_owner = settings.owners is None
    owners = Owners(uids=parse_ids(DEFAULT_PROXY_ID)) if to_owner else None
    other = replace(settings, owners=owners)
    try:
        in_force = where.call(_in_force, plan_of(steering, other))
    except (InvalidPlan, KernelRefused, OSError):
        return
    if in_force:
        click.echo(f"what is there is right for --identity {OWNER if to_owner else MARK}", err=True)


def _in_force(plan: RedirectPlan) -> bool:
    from agent.kernel import backends

    held = backends.held()
    return bool(held) and all(backends.in_force(plan, backend) for backend in held)


def _refuse_node(where: Namespace) -> None:
    from agent.init.places import node_instead_of_pod

    why = where.call(node_instead_of_pod)
    if why is not None:
        raise click.ClickException(f"{where.name} is a node's, not a pod's: {why}; if it is meant, give --force")


def _tell_pods(answer: dict[str, Any], *, fix: bool) -> None:
    for foreign in answer["foreign"]:
        click.echo(f"comes before our rules: {printable(foreign, 1000)}", err=True)
    if fix and answer["changes"] and not answer["fixed"]:
        left = "; ".join(answer["left"])
        raise click.ClickException(
            f"pod {answer['pod']} still differs, it is {answer['state']}: {printable(left, 1000)}"
        )
    _tell(f"pod {printable(answer['pod'])}", tuple(answer["changes"]), fixed=fix)


def _tell(where: str, changes: tuple[str, ...], *, fixed: bool) -> None:
    for change in changes:
        click.echo(f"{'was: ' if fixed else ''}{printable(change, 1000)}")
    if not changes:
        click.echo(f"{where} holds what is planned", err=True)
    elif fixed:
        click.echo(f"{where} holds what is planned again", err=True)
    else:
        click.echo(f"{where} differs from the plan ({len(changes)}); --fix puts it in force", err=True)
        sys.exit(1)
