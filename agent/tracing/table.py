"""The table of a trace: it marks packets that are meant, before any other rule sees them. Pure.

At -400, before conntrack (-200) and the raw tables (-300), on what is sent here and what arrives. Two counters stand in
each rule: of what was meant, and of what the limit let through; so what a reader missed is known to the packet.
"""

import re
from typing import Final

from agent.explain.packet import Way
from agent.tracing.filter import Filter, conditions

PRIORITY: Final = -400
"""NF_IP_PRI_CONNTRACK_DEFRAG (linux/netfilter_ipv4.h). What hangs there already comes first or last, as registered."""
NAME_PREFIX: Final = "headgate-trace-"
NAME: Final = re.compile(rf"{NAME_PREFIX}[0-9]+-[0-9]+")
"""The process's number and one by chance. By this name others know that it goes by itself (agent.ruleset.whose)."""
HOOKS: Final = {Way.OUTBOUND: "output", Way.INBOUND: "prerouting"}

PER_SECOND: Final = 5000
"""Packets a second that are traced by default, of each rule. Each makes 10 to 60 messages, and some 25,000 messages a
second is what one core reads and decodes (measured: tests/netns/tracing/test_rate.py)."""


def script(name: str, wanted: Filter, per_second: int = PER_SECOND) -> str:
    """For libnftables, whose context must stay open. No rule for a way that the filter rules out."""
    chains = (_chain(hook, conditions(wanted, way), per_second) for way, hook in HOOKS.items())
    return f"table inet {name} {{\n\tflags owner\n{''.join(chains)}}}\n"


def _chain(hook: str, meant: tuple[str, ...], per_second: int) -> str:
    if not meant:
        return ""
    limit = f"limit rate {per_second}/second burst {per_second} packets"
    rules = "".join(
        f"\t\t{rule} counter {limit} counter meta nftrace set 1\n".replace("\t\t ", "\t\t") for rule in meant
    )
    return f"\tchain {hook} {{\n\t\ttype filter hook {hook} priority {PRIORITY}; policy accept;\n{rules}\t}}\n"
