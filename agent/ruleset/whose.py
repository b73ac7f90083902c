"""Whose a table, a chain or a rule is, by the names that its maker is known to use. Pure.

Ours is only what says so itself, in a way that no other program does: what is called ours here is removed by `rules
clean`. All other names are for people to read.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from agent.plan.iptables_saved import is_our_chain, of_our_words
from agent.plan.render.nft import ANCHOR_TABLE, TABLE
from agent.ruleset.inventory import HEADGATE, UNKNOWN, HeldChain, HeldRule, HeldTable, Tool

_OURS: Final = re.compile(r"headgate[A-Za-z0-9_-]{0,55}")
ISTIO, AMBIENT, KUMA = "istio", "istio ambient", "kuma"
TRACE: Final = "headgate rules trace"
"""A table that goes with its command (agent.tracing.table): nothing of it is a pod's, and nobody else can remove it."""

# Names as their makers' sources have them: istio tools/istio-iptables/pkg/constants, cni/pkg/{iptables,nftables};
# linkerd2-proxy-init iptables.go; kuma pkg/transparentproxy/iptables/consts; consul sdk/iptables; kubernetes
# pkg/proxy/{iptables,nftables}, pkg/kubelet; moby libnetwork; and the CNI plugins' own.
_MAKERS: Final = tuple(
    (re.compile(pattern), maker)
    for pattern, maker in (
        (r"headgate-trace-[0-9]+-[0-9]+", TRACE),
        (r"ISTIO_(PRERT|POSTRT)|istio-ambient-.*", AMBIENT),
        (r"ISTIO_.*|istio-.*", ISTIO),
        (r"PROXY_INIT_.*", "linkerd"),
        (r"KUMA_.*", KUMA),
        (r"CONSUL_.*", "consul"),
        (r"KUBE-.*|kube-proxy|kubernetes", "kube-proxy"),
        (r"DOCKER.*|docker.*", "docker"),
        (r"CILIUM_.*|cilium.*", "cilium"),
        (r"cali-.*|calico.*", "calico"),
        (r"FLANNEL-.*|flannel.*", "flannel"),
        (r"CNI-.*|cni_.*|cni-.*", "CNI plugins"),
        (r"NETAVARK.*|netavark", "podman"),
        (r"LIBVIRT_.*|libvirt.*", "libvirt"),
        (r"firewalld", "firewalld"),
        (r"ufw6?-.*", "ufw"),
    )
)
_COMMENTS: Final = (
    ("proxy-init/", "linkerd"),
    ("kuma/mesh/", KUMA),
    ("cali:", "calico"),
    ("kubernetes ", "kube-proxy"),
    ("cilium", "cilium"),
    ("flanneld", "flannel"),
)
_OUR_COMMENT: Final = re.compile(r"[A-Za-z0-9_.:+-]+")
"""What of iptables claims to be ours and is not made of our words is not removed: agent.plan.iptables_saved tells."""
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_TARGET: Final = re.compile(r"(?:^|\s)(?:-j|-g|jump|goto) ([^\s]+)")


def maker_of(name: str) -> str:
    """Of a table or chain."""
    if is_our_chain(name):
        return HEADGATE
    return next((maker for pattern, maker in _MAKERS if pattern.fullmatch(name)), UNKNOWN)


def told_apart(table: HeldTable) -> HeldTable:
    """The table, each chain and each rule of it with the name of whose it is."""
    whose = _of_table(table)
    return replace(table, whose=whose, chains=tuple(_chain(chain, table, whose) for chain in table.chains))


def _of_table(table: HeldTable) -> str:
    if table.tool is not Tool.NFT:  # raw, mangle, nat and filter belong to nobody
        return UNKNOWN
    if table.family == "inet" and table.name in (TABLE, ANCHOR_TABLE):
        return HEADGATE
    # Another version's: by its name alone it could be what a user made who reads our documentation.
    if _OURS.fullmatch(table.name) and any(rule.rule_id is not None for _, rule in table.rules):
        return HEADGATE
    return maker_of(table.name)


def _chain(chain: HeldChain, table: HeldTable, of_table: str) -> HeldChain:
    whose = of_table if of_table != UNKNOWN else maker_of(chain.name)
    if whose == HEADGATE and table.tool is Tool.NFT and of_table != HEADGATE:
        whose = UNKNOWN  # HEADGATE_ chains are of iptables
    return replace(chain, whose=whose, rules=tuple(_rule(rule, table, whose) for rule in chain.rules))


def _rule(rule: HeldRule, table: HeldTable, of_chain: str) -> HeldRule:
    """A rule in a chain of ours that does not say it is ours was put there by somebody else."""
    targets = _targets(rule.text)
    if table.tool is Tool.NFT:
        ours = rule.rule_id is not None and of_chain == HEADGATE
    else:
        claimed = rule.rule_id is not None or any(map(is_our_chain, targets))
        ours = claimed and of_our_words(rule.text) and bool(_OUR_COMMENT.fullmatch(rule.comment or "-"))
    if ours:
        return replace(rule, whose=HEADGATE)
    by_comment = next((maker for prefix, maker in _COMMENTS if rule.comment.startswith(prefix)), UNKNOWN)
    names = (by_comment, *(maker_of(target) for target in targets))
    whose = next((name for name in names if name != UNKNOWN), UNKNOWN)
    if whose == UNKNOWN and of_chain != HEADGATE:
        whose = of_chain
    return replace(rule, whose=whose)


def _targets(text: str) -> list[str]:
    """Not those that a comment only speaks of."""
    return _TARGET.findall(_QUOTED.sub("", text))


def makers(tables: Iterable[HeldTable]) -> frozenset[str]:
    """Everybody who is known and holds something here."""
    found = {table.whose for table in tables}
    for table in tables:
        found |= {chain.whose for chain in table.chains} | {rule.whose for _, rule in table.rules}
    return frozenset(found - {UNKNOWN})
