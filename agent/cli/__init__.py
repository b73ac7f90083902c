"""`headgate`: one command, whose verbs are found by name and imported only when asked for.

`headgate proxy` must load nothing of the agent, and no verb should pay for another's imports: so the group names its
verbs' modules by string.
"""

import importlib
from typing import Final

import click

_VERBS: Final = {
    "agent": ("agent.cli.agent:agent", "Run the node agent."),
    "demo": ("agent.cli.demo:demo", "The main job on a throw-away node, then nothing left of it."),
    "events": ("agent.cli.events:events", "What happened to the node's pods."),
    "lab": ("agent.cli.lab:lab", "A throw-away node on this machine."),
    "pods": ("agent.cli.pods:pods", "The node's pods, their state and proofs."),
    "proxy": ("proxy.cli:proxy", "Run the per-node proxy."),
    "rules": ("agent.cli.rules:rules", "The redirect rules of a pod: show, verify, plan."),
}


class _LazyGroup(click.Group):
    """A group whose help lists every verb without importing one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = _VERBS.get(cmd_name)
        if verb is None:
            return None
        module, _, name = verb[0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in sorted(_VERBS.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headgate", prog_name="headgate")
def main() -> None:
    """Node agent and per-node mesh proxy for Kubernetes: rules that are proved, policy that is fast."""
