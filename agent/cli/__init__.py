"""`headgate`: one command, whose verbs are found by name and imported only when asked for.

`headgate proxy` must load nothing of the agent, and no verb should pay for another's imports: so the group names its
verbs' modules by string.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import click

_VERBS: Final = {
    "agent": ("agent.cli.agent:agent", "Run the node agent."),
    "capture": ("agent.cli.capture:capture", "A pod's packets, each with what translation hides of it."),
    "check": ("agent.cli.check:check", "Whether headgate can be installed in a cluster; whether it works there."),
    "cni": ("agent.cli.cni:cni", "Our plugin in the node's CNI configuration."),
    "conn": ("agent.cli.conn:conn", "Who talks to whom, through which listener; what goes direct, and why."),
    "demo": ("agent.cli.demo:demo", "The main job on a throw-away node, then nothing left of it."),
    "doctor": ("agent.cli.doctor:doctor", "What is wrong with this node: each with why, and what to do."),
    "events": ("agent.cli.events:events", "What happened to the node's pods."),
    "init": ("agent.cli.init:init", "Install the redirect rules in a pod, then exit."),
    "inject": ("agent.cli.inject:inject_command", "Add a sidecar to manifests; --uninject takes it out."),
    "install": ("agent.cli.install:install", "Print the manifests of agent and proxy, for kubectl apply -f -."),
    "lab": ("agent.cli.lab:lab", "A throw-away node on this machine."),
    "pods": ("agent.cli.pods:pods", "The node's pods, their state and proofs."),
    "proxy": ("proxy.cli:proxy", "Run the per-node proxy."),
    "rules": ("agent.cli.rules:rules", "Redirect rules: show, plan, diff, explain, trace, verify, clean."),
    "uninstall": ("agent.cli.install:uninstall", "Print what takes headgate out of a cluster, in two steps."),
    "webhook": ("agent.cli.webhook:webhook", "Give pods init container and sidecar when they are created."),
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


_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""write(2), of what is open already: whoever opens a file has its name in the error."""


class _LazyGroup(click.Group):
    """A group whose help lists every verb without importing one."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        called = _PEERS.get(Path(sys.argv[0]).name) if args is None else None
        peer = called or ("istio" if given[:1] == [_ISTIO] else None)
        try:
            return super().main(given if peer is None else ["init", peer, *given], *rest, **extra)
        except OSError as error:  # click ends by itself where a reader has gone
            if error.errno not in _UNWRITABLE or error.filename is not None:
                raise
            _unwritten(error)

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


def _unwritten(error: OSError) -> NoReturn:
    """What was printed is cut short: said, and not tried again when Python flushes at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    with suppress(OSError):
        click.echo(f"Error: the output cannot be written: {error.strerror}; use none of it", err=True)
    sys.exit(1)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headgate", prog_name="headgate")
def main() -> None:
    """Node agent and per-node mesh proxy for Kubernetes: rules that are proved, policy that is fast."""
