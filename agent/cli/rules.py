"""`headgate rules`: what the kernel holds, what it means, what it is to hold, and whether it works.

With POD the agent of this node is asked. Without, the verbs act by themselves in a network namespace: --netns PATH, or
the one they run in.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.client import ask, output_option, pod_path, run_dir_option, show, table
from agent.cli.rules_explain import explain
from agent.cli.rules_plan import diff, plan
from agent.cli.rules_trace import trace
from agent.cli.rules_verify import verify
from agent.cli.target import Namespace, failing, namespace_of, namespace_options, pod_argument
from agent.printable import printable
from proxy.api.constants import ADMIN_SOCKET

if TYPE_CHECKING:
    from agent.ruleset.inventory import Inventory

_POD = tuple[str | None, str]


@click.group()
def rules() -> None:
    """Redirect rules: show, plan, diff, explain, trace, verify, clean."""


rules.add_command(plan)
rules.add_command(diff)
rules.add_command(explain)
rules.add_command(trace)
rules.add_command(verify)


# ── show ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@rules.command("show")
@pod_argument
@namespace_options
@run_dir_option
@output_option
def show_rules(pod: _POD | None, netns: Path | None, own: bool, run_dir: Path, output: str) -> None:
    """Show every rule that the kernel holds, of all tables and tools: ours with meaning and counters, others' as
    theirs. With POD, ours are those of the agent's plan, whether the kernel holds them or not."""
    where = namespace_of(pod, netns, own)
    if where is None:
        assert pod is not None
        path = pod_path(run_dir, pod)
        answer = ask(run_dir, f"/rules/{path}")
        _show_pod(answer, _others(ask(run_dir, f"/pods/{path}")["netns"]), output)
        return
    with failing(where):
        _show_all(where, output)


def _show_all(where: Namespace, output: str) -> None:
    from agent.ruleset import view
    from agent.ruleset.meanings import meanings_for
    from agent.ruleset.read import inventory

    found = where.call(inventory)
    meaning = meanings_for(found.rule_ids)
    if output != "table":
        show(view.as_json(found, meaning), output)
        return
    for held in found.tables:
        click.echo(_section(view.heading(held), view.rows(held, meaning)))
    rows = view.routing_rows(found)
    if rows:
        click.echo(table(view.ROUTING_HEAD, rows))
    if not found.tables and not rows:
        click.echo(f"no rules in {where.name}", err=True)
    _say_conflicts(found)
    for reason in found.unread:
        click.echo(f"not read: {printable(reason, 1000)}", err=True)


def _say_conflicts(found: "Inventory") -> None:
    from agent.ruleset import view

    for text in view.told_conflicts(found):
        click.echo(f"conflict: {text}")


def _section(heading: str, rows: Sequence[tuple[str, ...]]) -> str:
    from agent.ruleset import view

    return f"{heading}\n{table(view.HEAD, rows) if rows else '(no rule)'}\n"


def _others(netns: str) -> "Inventory | str":
    """What others hold in the pod, or why this command cannot look: it may run where the agent's files are not."""
    from agent.kernel.refused import KernelRefused
    from agent.ruleset.inventory import not_ours
    from agent.ruleset.read import inventory

    try:
        return not_ours(Namespace(Path(netns)).call(inventory))
    except (KernelRefused, OSError, click.ClickException) as error:
        return str(error)


def _show_pod(answer: dict[str, Any], others: "Inventory | str", output: str) -> None:
    from agent.ruleset import view
    from agent.ruleset.meanings import meanings_for

    meaning = meanings_for(())
    if output != "table":
        seen = {"error": others} if isinstance(others, str) else view.as_json(others, meaning)
        show({**answer, "others": seen}, output)
        return
    reason = f" ({printable(answer['reason'], 1000)})" if answer["reason"] else ""
    click.echo(f"pod {printable(answer['pod'])}: {answer['state']}{reason}")
    for section in answer["tables"]:
        click.echo(f"\ntable inet {section['name']}")
        rows = [_row(rule) for rule in section["rules"]]
        click.echo(table(("CHAIN", "RULE", "PACKETS", "MEANING"), rows))
    path = answer["return_path"]
    click.echo(f"\nip rule {path['preference']}: fwmark {path['mark']} lookup {path['table']} (v4 and v6)")
    click.echo(f"ip route: local default dev lo table {path['table']}")
    if isinstance(others, str):
        click.echo(f"others' rules cannot be read from here: {printable(others, 1000)}", err=True)
        return
    for held in others.tables:
        click.echo(f"\n{_section(view.heading(held), view.rows(held, meaning)).rstrip()}")
    _say_conflicts(others)


def _row(rule: dict[str, Any]) -> tuple[str, ...]:
    packets = "missing" if rule["packets"] is None else str(rule["packets"])
    return (rule["chain"], rule["id"], packets, rule["meaning"])


# ── clean ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@rules.command("clean")
@namespace_options
@run_dir_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--force", is_flag=True, help="Also where an agent of this node serves the pod; it will heal at once.")
def clean(netns: Path | None, own: bool, run_dir: Path, dry_run: bool, force: bool) -> None:
    """Remove what is ours from the kernel, in every backend, old versions included, and nothing else. Connections that
    are steered now lose their translation, and with it their end."""
    where = namespace_of(None, netns, own) or Namespace(None)
    if not (dry_run or force):
        _refuse_served(where, run_dir)
    with failing(where):
        _clean(where, dry_run)


def _clean(where: Namespace, dry_run: bool) -> None:
    from agent.ruleset.clean import removal
    from agent.ruleset.read import inventory
    from agent.ruleset.remove import count_steered, remove

    found = removal(where.call(inventory, ask_legacy=not dry_run))
    if not found.is_nothing and (living := where.call(count_steered)):
        click.echo(f"connections that lose their translation: {living}", err=True)
    if not dry_run and not found.is_nothing:
        where.call(remove, found)
    for words in found.words:
        click.echo(f"{'would remove' if dry_run else 'removed'}: {printable(words, 400)}")
    for words in found.kept:
        click.echo(f"kept: {printable(words, 400)}", err=True)
    if found.is_nothing:
        click.echo(f"nothing of ours in {where.name}", err=True)
    elif not dry_run and (left := removal(where.call(inventory)).words):
        raise click.ClickException(f"still there, somebody puts it back: {printable('; '.join(left), 1000)}")


def _refuse_served(where: Namespace, run_dir: Path) -> None:
    """Where an agent serves the pod the rules would be back within a second, and be told as drift."""
    if not (run_dir / ADMIN_SOCKET).exists():
        return
    try:
        pods = ask(run_dir, "/pods")["pods"]
    except click.ClickException:
        return  # no agent, only its socket
    served = next((pod for pod in pods if pod["netns_id"] == where.identity() and pod["state"] not in _LEFT), None)
    if served is not None:
        name = printable(f"{served['namespace']}/{served['name']}")
        raise click.ClickException(
            f"{where.name} is pod {name}, which the agent serves: it would put the rules back; "
            "label the pod headgate.io/mesh: disabled, or give --force"
        )


_LEFT = frozenset({"disabled", "gone", "failed"})
