"""What the node itself holds for its pods' sake: its own connections to them get an address that pods know probes by.

kubelet probes from the node's address, as which others arrive too; in a pod, nobody can tell. So what a process of the
node opens to a steered pod leaves from an address that nothing else has, and the pod's rules let that pass
(agent.plan.matching.from_probes). As Istio ambient does it (istio cni/pkg/iptables: CreateHostRulesForHealthChecks),
with three differences: root's sockets alone, not any; nothing that was addressed to a Service; and the address is
refused to whoever else sends from it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from agent.plan.settings import ProbeSettings
from agent.pods import IPAddress
from proxy.api.constants import PROOF_PORT

TABLE: Final = "headgate-node"
SETS: Final = {4: "pods4", 6: "pods6"}
"""By version. Each element's comment is the pod's uid."""
TAG_CHARACTERS: Final = 100
"""Of a uid: nft keeps comments of up to 128 bytes (libnftnl udata.h: NFTNL_UDATA_COMMENT_MAXLEN)."""

SPOOFED: Final = "node-spoofed"
PROBES: Final = "node-probes"
"""Rules, by id; the version behind."""
MEANINGS: Final = {
    **dict.fromkeys((f"{SPOOFED}4", f"{SPOOFED}6"), "nobody else sends from the address that probes have: dropped"),
    **dict.fromkeys((f"{PROBES}4", f"{PROBES}6"), "what the node's root opens to a pod gets the address of probes"),
}

Pods = Mapping[IPAddress, str]
"""Whose address it is, as `tag_of` writes it."""

_ADDRESS: Final = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}


def tag_of(uid: str) -> str:
    return uid[:TAG_CHARACTERS]


def fit(address: IPAddress) -> bool:
    """Whether a pod can be reached there from its node. A Pod object's status is written by whoever may."""
    return not (address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local)


def wanted_pods(held: Pods, steered: Pods, settling: Iterable[str]) -> dict[IPAddress, str]:
    """All steered pods' addresses; and of what is there already, that of pods (`settling`: tags) of which it is not
    known yet whether they are: an agent that begins must not take away what the one before it was right about (istio
    #60471). An address
    that has passed to another pod is that one's."""
    waiting = frozenset(settling)
    kept = {address: tag for address, tag in held.items() if tag in waiting}
    return {**kept, **{address: tag for address, tag in steered.items() if fit(address)}}


def install_script(probes: ProbeSettings, pods: Pods) -> str:
    """All of it, in place of whatever there is of ours; living connections keep their translation: that is
    conntrack's."""
    return f"{remove_script()}table inet {TABLE} {{\n{_sets(pods)}{_chains(probes)}}}\n"


def remove_script() -> str:
    """The absence of the table is no error (nft(8): adding an existing one is none)."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def change_script(held: Pods, wanted: Pods) -> str:
    """From the one content of the sets to the other; empty when they are equal. An element whose comment alone is
    another is made anew."""
    gone = {address: tag for address, tag in held.items() if wanted.get(address) != tag}
    new = {address: tag for address, tag in wanted.items() if held.get(address) != tag}
    return _elements("delete", gone, tagged=False) + _elements("add", new, tagged=True)


# ── Text ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _elements(verb: str, pods: Pods, *, tagged: bool) -> str:
    lines = []
    for version, name in SETS.items():
        listed = _listed(version, pods, tagged=tagged)
        if listed:
            lines.append(f"{verb} element inet {TABLE} {name} {{ {listed} }}\n")
    return "".join(lines)


def _listed(version: int, pods: Pods, *, tagged: bool) -> str:
    of_family = sorted((item for item in pods.items() if item[0].version == version), key=lambda item: int(item[0]))
    return ", ".join(f'{address} comment "{tag}"' if tagged else str(address) for address, tag in of_family)


def _sets(pods: Pods) -> str:
    parts = []
    for version, name in SETS.items():
        listed = _listed(version, pods, tagged=True)
        elements = f"\t\telements = {{ {listed} }}\n" if listed else ""
        parts.append(f"\tset {name} {{\n\t\ttype {_ADDRESS[version][1]}\n{elements}\t}}\n")
    return "".join(parts)


def _chains(probes: ProbeSettings) -> str:
    """Before conntrack (raw, −300) what is spoofed; one before srcnat (100) the translation: of the nat chains of one
    hook the first that translates wins, and a CNI's masquerade would (linux/netfilter_ipv4.h; nf_nat_core.c:
    nf_nat_inet_fn)."""
    sources = {4: probes.source4, 6: probes.source6}
    spoofed, probed = [], []
    for version, source in sources.items():
        ip = _ADDRESS[version][0]
        spoofed.append(f'\t\tiifname != "lo" {ip} saddr {source} counter drop comment "headgate:{SPOOFED}{version}"\n')
        probed.append(
            f"\t\tmeta skuid 0 ct status & dnat == 0 tcp dport != {PROOF_PORT} {ip} daddr @{SETS[version]} "
            f'counter snat {ip} to {source} comment "headgate:{PROBES}{version}"\n'
        )
    return (
        "\tchain spoofed {\n\t\ttype filter hook prerouting priority -300; policy accept;\n"
        + "".join(spoofed)
        + "\t}\n"
        "\tchain probes {\n\t\ttype nat hook postrouting priority 99; policy accept;\n" + "".join(probed) + "\t}\n"
    )
