"""A namespace with other people's rules in it, and the command line as a person uses it there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner, Result

from agent.cli import main
from agent.kernel import backends
from agent.kernel.backends import Backend
from agent.plan import PlanSettings, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners
from tests.netns.kernel.scratch import NODE4, NODE6, Scratch, pod_and_node

SIDECAR = PlanSettings(owners=Owners(uids=Ranges.of(1337)))
NODE = PlanSettings()
MODES = {"owner": SIDECAR, "mark": NODE}
NFT, IPTABLES_NFT, LEGACY = Backend.NFTABLES, Backend.IPTABLES_NFT, Backend.IPTABLES_LEGACY

FOREIGN_NFT = """\
table inet docker-bridges {
	set addresses {
		type ipv4_addr
		elements = { 172.17.0.2, 172.17.0.3 }
	}
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr @addresses counter accept comment "docker's own"
	}
}
table inet headgate-users-own {
	chain x {
		counter accept comment "a user's, who read our documentation"
	}
}
"""
FOREIGN_IPTABLES = """\
*nat
:ISTIO_REDIRECT - [0:0]
:MINE - [0:0]
-A OUTPUT -p tcp -m owner --uid-owner 4000 -j ISTIO_REDIRECT
-A OUTPUT -p tcp --dport 7777 -m comment --comment "headgate is not mine" -j MINE
-A ISTIO_REDIRECT -p tcp --dport 1 -j REDIRECT --to-ports 15001
-A MINE -j RETURN
COMMIT
*filter
-A INPUT -p tcp --dport 7777 -m comment --comment " -j HEADGATE_X" -j ACCEPT
COMMIT
"""


@dataclass(frozen=True, slots=True)
class Here:
    """A pod's namespace."""

    pod: Scratch

    def headgate(self, *words: str) -> Result:
        """`headgate rules WORDS --netns`, as a person on the node says it."""
        return CliRunner().invoke(main, ["rules", *words, "--netns", self.pod.path])

    def said(self, *words: str) -> Any:
        """As JSON; whatever the exit status."""
        return json.loads(self.headgate(*words, "-o", "json").stdout)

    def install(self, backend: Backend, settings: PlanSettings = SIDECAR, wanted: Steering | None = None) -> None:
        wanted = wanted or Steering()
        self.pod.run(backends.install, plan_of(wanted, settings), settings, backend)

    def restore(self, tool: str, text: str) -> None:
        self.pod.shell("sh", "-c", f"exec {tool}-restore --noflush <<'END'\n{text}END\n")

    def nft(self, script: str) -> None:
        self.pod.shell("nft", script)

    def foreign(self) -> None:
        """Rules as docker, Istio and a user make them, with every tool."""
        self.nft(FOREIGN_NFT)
        for tool in ("iptables-nft", "ip6tables-nft", "iptables-legacy"):
            self.restore(tool, FOREIGN_IPTABLES)

    def dump(self) -> dict[str, str]:
        """Everything that there is, in the words of everybody's tools."""
        commands = (
            ("nft", "-a", "list", "ruleset"),
            *((f"{tool}-save",) for tool in ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")),
            *(
                ("ip", family, *what)
                for family in ("-4", "-6")
                for what in (("rule",), ("route", "show", "table", "all"))
            ),
            ("ip", "-brief", "address", "show", "dev", "lo"),
            ("ip", "-brief", "link"),
        )
        return {" ".join(command): _without_times(self.pod.shell(*command)) for command in commands}


def _without_times(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


@contextmanager
def pod() -> Iterator[Here]:
    """With addresses and a node behind which nobody is."""
    with pod_and_node() as (made, _):
        for family, node in (("-4", NODE4), ("-6", NODE6)):
            made.shell("ip", family, "route", "add", "default", "via", node)
        yield Here(made)


@contextmanager
def quiet_pod() -> Iterator[Here]:
    """With lo alone: nothing counts."""
    with Scratch() as made:
        made.shell("ip", "link", "set", "lo", "up")
        yield Here(made)
