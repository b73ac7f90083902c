"""A namespace in which other people keep rules of both iptables, and how it looks to their own tools."""

import re
import socket
from collections.abc import Callable
from typing import Final

from agent.kernel.iptables_tools import Variant
from agent.plan import PlanSettings, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners
from proxy.api.constants import RETURN_TABLE
from tests.netns.kernel.scratch import Scratch

NODE: Final = PlanSettings()
INIT: Final = PlanSettings(owners=Owners(Ranges.of(1337, (2000, 2010)), Ranges.of(2102)))
NODE_PLAN: Final = plan_of(Steering(), NODE)
INIT_PLAN: Final = plan_of(Steering(), INIT)
OTHER_PLAN: Final = plan_of(Steering(exclude_outbound_ports=Ranges.of(5432, (3000, 3005))), NODE)

FAMILIES: Final = ("iptables", "ip6tables")
FOREIGN: Final = """\
*filter
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:MINE - [0:0]
-A OUTPUT -p udp -m udp --dport 9 -m comment --comment "somebody's; \\"quoted\\" -j HEADGATE_X" -j MINE
-A MINE -j RETURN
COMMIT
*nat
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
-A OUTPUT -p tcp -m tcp --dport 7 -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -m mark --mark 0x7/0xff -j RETURN
COMMIT
"""


def foreign(pod: Scratch, variant: Variant) -> None:
    for tool in FAMILIES:
        restore(pod, variant, tool, FOREIGN)


def restore(pod: Scratch, variant: Variant, tool: str, text: str) -> None:
    pod.shell("sh", "-c", f"printf '%s' \"$1\" | {tool}-{variant.value}-restore --noflush", "sh", text)


def saves(pod: Scratch, variant: Variant) -> list[str]:
    """All tables as text, counters and dates apart."""
    texts = [pod.shell(f"{tool}-{variant.value}-save") for tool in FAMILIES]
    return [re.sub(r"^#.*\n|\[\d+:\d+\]", "", text, flags=re.MULTILINE) for text in texts]


def used(text: str) -> str:
    """Without tables that decide nothing: legacy keeps those that were used once."""
    tables = re.findall(r"^\*\S+\n.*?^COMMIT$", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(table for table in tables if re.search(r"^-A|^:\S+ -|^:\S+ DROP", table, flags=re.MULTILINE))


def holdings(pod: Scratch, variant: Variant) -> list[str]:
    """All that a change may touch, byte for byte where the kernel can give it back so."""
    texts = saves(pod, variant)
    if variant is Variant.LEGACY:
        texts = list(map(used, texts))
    commands = (
        ("nft", "list", "ruleset"),
        ("ip", "rule"),
        ("ip", "-6", "rule"),
        ("ip", "-6", "address", "show", "dev", "lo"),
    )
    routes = pod.shell("ip", "route", "show", "table", "all").splitlines()
    ours = [route for route in routes if f"table {RETURN_TABLE}" in route]
    return [*texts, *(pod.shell(*command) for command in commands), *ours]


def reaches(pod: Scratch, node: Scratch, address: str, wait: Callable[[socket.socket], bool]) -> bool:
    """Whether a new connection of the pod's to the node's address arrives there, in clear."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with node.run(socket.create_server, (address, 0), family=family) as listener:
        listener.setblocking(False)
        with pod.run(socket.socket, family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname()[:2])
            return wait(listener)
