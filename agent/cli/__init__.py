"""`headgate`: one command, whose verbs are found by name and imported only when asked for.

`headgate proxy` must load nothing of the agent, and no verb should pay for another's imports: so the group names its
verbs' modules by string.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

_VERBS: Final = {
    "agent": ("agent.cli.agent:agent", "Run the node agent."),
    "capture": ("agent.cli.capture:capture", "A pod's packets, each with what translation hides of it."),
    "cni": ("agent.cli.cni:cni", "Our plugin in the node's CNI configuration."),
    "conn": ("agent.cli.conn:conn", "Who talks to whom, through which listener; what goes direct, and why."),
    "demo": ("agent.cli.demo:demo", "The main job on a throw-away node, then nothing left of it."),
    "doctor": ("agent.cli.doctor:doctor", "What is wrong with this node: each with why, and what to do."),
    "events": ("agent.cli.events:events", "What happened to the node's pods."),
    "init": ("agent.cli.init:init", "Install the redirect rules in a pod, then exit."),
    "install": ("agent.cli.install:install", "Print the manifests of agent and proxy, for kubectl apply -f -."),
    "lab": ("agent.cli.lab:lab", "A throw-away node on this machine."),
    "pods": ("agent.cli.pods:pods", "The node's pods, their state and proofs."),
    "proxy": ("proxy.cli:proxy", "Run the per-node proxy."),
    "rules": ("agent.cli.rules:rules", "Redirect rules: show, plan, diff, explain, trace, verify, clean."),
    "uninstall": ("agent.cli.install:uninstall", "Print what takes headgate out of a cluster, in two steps."),
    "why": ("agent.cli.why:why", "Why a pod is not in the mesh, and the remedy."),
}


_PEERS: Final = {
    "istio-iptables": "istio",
    "pilot-agent": "istio",
    "proxy-init": "linkerd",
    "linkerd2-proxy-init": "linkerd",
    "kumactl": "kuma",
}
"""By program name: whose command line `headgate init` is to take. An image has a link of that name where a template's
`command` names the peer's program, so that only the image changes in it (docs/migrate-*.md)."""

_ISTIO: Final = "istio-iptables"
"""The first word that Istio's template gives to whatever program the image begins with."""


class _LazyGroup(click.Group):
    """A group whose help lists every verb without importing one."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        called = _PEERS.get(Path(sys.argv[0]).name) if args is None else None
        peer = called or ("istio" if given[:1] == [_ISTIO] else None)
        return super().main(given if peer is None else ["init", peer, *given], *rest, **extra)

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
