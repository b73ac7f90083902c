"""Rules of several makers and tools beside each other. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import NODE, Facts, Namespace, Rules
from agent.doctor.findings import Finding, Severity
from agent.ruleset.conflicts import conflicts
from agent.ruleset.inventory import HeldTable, Tool

IDS: Final = {
    "mixed-backends": "rules of iptables-legacy beside rules of nftables",
    "mark-conflict": "others' rules that write our mark, or take our routing rule and table",
    "kube-proxy": "kube-proxy's mode",
    "kube-proxy-leftovers": "rules of two modes of kube-proxy",
}
_SERVICES: Final = "KUBE-SERVICES"
_NFT_TABLE: Final = "kube-proxy"


def check(facts: Facts) -> Iterator[Finding]:
    for namespace in facts.namespaces:
        if namespace.rules is not None:
            yield from _mixed(namespace, namespace.rules)
            if not namespace.is_node:
                yield from _conflicts(namespace, namespace.rules)
    yield from _kube_proxy(facts)


def _mixed(namespace: Namespace, rules: Rules) -> Iterator[Finding]:
    counts = dict(rules.counts)
    legacy = counts.get(Tool.IPTABLES_LEGACY, 0)
    others = [(tool, number) for tool, number in counts.items() if tool is not Tool.IPTABLES_LEGACY]
    if not legacy or not others:
        return
    beside = " and ".join(f"{number} of {tool.value}" for tool, number in others)
    translates = any(table.name == "nat" and any(table.rules) for table in _legacy(rules.inventory.tables))
    in_the_way = namespace.is_enrolled and translates
    yield Finding(
        "mixed-backends",
        Severity.SERIOUS if in_the_way else Severity.WARNING,
        namespace.where,
        f"{legacy} rules of iptables-legacy are in force beside {beside}",
        "the kernel asks both for each packet, and who asks one tool sees half of them; of two translations of one "
        "connection the first to be asked wins, and which that is depends on who came first",
        "find out whose they are (headgate rules show), let one tool make them all (update-alternatives --config "
        "iptables), then flush the other's: iptables-legacy -t TABLE -F",
    )


def _legacy(tables: tuple[HeldTable, ...]) -> Iterator[HeldTable]:
    return (table for table in tables if table.tool is Tool.IPTABLES_LEGACY)


def _conflicts(namespace: Namespace, rules: Rules) -> Iterator[Finding]:
    """Not in the node's own: a mark does not leave its namespace (net/core/skbuff.c: skb_scrub_packet), and the
    proxy's sockets are made in the pods'."""
    for told in conflicts(rules.inventory):
        what, _, remedy = told.rpartition(": ")
        yield Finding(
            "mark-conflict",
            Severity.SERIOUS if namespace.is_enrolled else Severity.WARNING,
            namespace.where,
            what,
            "what carries the proxy's mark by accident passes the mesh by; the proxy's own packets without it are led "
            "back to it, and the application's answers miss it",
            remedy,
        )


# ── kube-proxy ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _kube_proxy(facts: Facts) -> Iterator[Finding]:
    if facts.node.rules is None:
        return
    modes = [*dict.fromkeys(_modes(facts.node.rules.inventory.tables)), *(["ipvs"] if facts.ipvs else [])]
    if not modes:
        yield Finding(
            "kube-proxy",
            Severity.INFO,
            NODE,
            "kube-proxy has no rules here",
            "what the proxy sends to a Service's address that it has no endpoints of is answered by somebody else "
            "(a CNI plugin that replaces kube-proxy), or by nobody",
            "none needed where Services work",
        )
        return
    yield Finding(
        "kube-proxy",
        Severity.INFO,
        NODE,
        f"kube-proxy translates Services by {', '.join(modes)}",
        "it does so on the node, behind the mesh: a steered connection is translated by the proxy first",
        "none needed",
    )
    if len(modes) > 1:
        yield Finding(
            "kube-proxy-leftovers",
            Severity.WARNING,
            NODE,
            f"rules of several modes of kube-proxy are in force: {', '.join(modes)}",
            "those of the mode that is no longer used grow old, and lead Services to pods that are gone",
            "kube-proxy --cleanup once, with the mode that is in use stopped; or restart the node",
        )


def _modes(tables: tuple[HeldTable, ...]) -> Iterator[str]:
    for table in tables:
        if table.tool is Tool.NFT and table.name == _NFT_TABLE:
            yield "nftables"
        elif table.name == "nat" and any(chain.name == _SERVICES and chain.rules for chain in table.chains):
            yield f"iptables ({table.tool.value})"
