"""An explanation as people and programs read it. Pure; everything is made printable here.

A packet's way through five thousand rules is told by the few that said something: runs of rules that missed are folded,
and only what is shown is put into words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.explain.outcome import Explanation, Fate, Outcome, Passage, Result, Step
from agent.explain.packet import ICMP, ICMP6, SCTP, TCP, UDP, Packet
from agent.explain.tables import Tool
from agent.pods import IPAddress
from agent.printable import printable
from agent.ruleset.packet_options import FLAGS, Described
from proxy.api import constants

ChainKey = tuple[str, str, str]
"""Family, table, chain; of nftables."""
Path = Sequence[Step | Passage]

LONGEST_RUN: Final = 12
"""Of rules that missed, shown one by one: the longest chain of a mesh in a pod's namespace has about as many."""
_TEXT: Final = 400
_PROTOCOLS: Final = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMP6: "ICMPv6", SCTP: "SCTP"}
_PORTS: Final = {
    constants.OUTBOUND_PORT: "the outbound listener of the mesh",
    constants.INBOUND_PORT: "the inbound listener of the mesh",
    constants.TUNNEL_PORT: "the tunnel listener of the mesh",
    constants.DNS_PORT: "the DNS listener of the mesh",
    4140: "Linkerd's outbound listener",  # linkerd2-proxy-init: --outgoing-proxy-port, --incoming-proxy-port
    4143: "Linkerd's inbound listener",
    20000: "Consul's inbound listener",  # consul-k8s: the sidecar's public listener
}
_FATES: Final = {
    Fate.ACCEPT: "passes",
    Fate.DROP: "dropped",
    Fate.REJECT: "refused, and its sender is told",
    Fate.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Explained:
    """`texts`: nft's rules as nft writes them, by chain, those that are shown. `listeners`: of ports that an outcome
    leads to, who listens there now, in words."""

    described: Described
    explanation: Explanation
    unread: tuple[str, ...] = ()
    texts: Mapping[ChainKey, Sequence[str]] = field(default_factory=dict)
    listeners: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Folded:
    """So many rules in a row that missed."""

    first: Step
    count: int


# ── What is shown ──────────────────────────────────────────────────────────────────────────────────────────────────
def folded(path: Path) -> list[Step | Passage | Folded]:
    """The path with its long runs of missed rules taken together, chain by chain."""
    found: list[Step | Passage | Folded] = []
    run: list[Step] = []
    for step in path:
        if isinstance(step, Step) and step.result is Result.MISSED:
            if run and not _same_chain(run[0], step):
                found += _run(run)
                run = []
            run.append(step)
            continue
        found += _run(run)
        run = []
        found.append(step)
    return found + _run(run)


def _run(steps: list[Step]) -> list[Step | Passage | Folded]:
    return [*steps] if len(steps) <= LONGEST_RUN else [Folded(steps[0], len(steps))]


def _same_chain(one: Step, other: Step) -> bool:
    return one.table is other.table and one.chain == other.chain and one.hook is other.hook


def chains_shown(explanation: Explanation, *, everything: bool) -> dict[ChainKey, int]:
    """Those of nft's chains whose rules' text is shown, and how many rules each has."""
    paths = [explanation.path, *(path for _, path in explanation.either)]
    shown = [step for path in paths for step in (path if everything else folded(path)) if isinstance(step, Step)]
    places = [(step.table, step.chain) for step in shown if step.rule is not None and not step.rule.text]
    places += [(doubt.table, doubt.chain) for doubt in explanation.doubts if doubt.rule is not None]
    keys = {
        (table.family, table.name, chain): table for table, chain in places if table.tool is not Tool.IPTABLES_LEGACY
    }
    return {key: len(table.chains[key[2]].rules) for key, table in keys.items()}


def ports_led_to(explanation: Explanation) -> frozenset[int]:
    """Of this namespace."""
    outcomes = (explanation.outcome, *(outcome for outcome, _ in explanation.either))
    return frozenset(o.port for o in outcomes if o.port is not None and o.fate in (Fate.REDIRECT, Fate.TPROXY))


# ── In words ───────────────────────────────────────────────────────────────────────────────────────────────────────
def packet_in_words(packet: Packet) -> str:
    """As `TCP syn, new, inbound on eth0: 10.0.0.9:* to 10.0.0.5:80`."""
    protocol = _PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
    flags = [name for name, bit in FLAGS.items() if packet.tcp_flags & bit] if packet.protocol == TCP else []
    where = "" if packet.interface is None else f" on {printable(packet.interface)}"
    source = "(as routing chooses)" if packet.source is None else _end(packet.source, packet.source_port, packet)
    told = f"{' '.join((protocol, *flags))}, {packet.state.value}, {packet.way.value}{where}: {source} to "
    told += _end(packet.destination, packet.destination_port, packet)
    if packet.sender is not None:
        told += f", sent by uid {packet.sender.uid}, gid {packet.sender.gid}"
    return f"{told}, mark {packet.mark:#x}" if packet.mark else told


def _end(address: IPAddress, port: int | None, packet: Packet) -> str:
    if packet.protocol not in (TCP, UDP, SCTP):
        return str(address)
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{shown}:{'*' if port is None else port}"


def outcome_in_words(outcome: Outcome, listeners: Mapping[int, str]) -> str:
    return ", ".join(printable(part, _TEXT) for part in (_fate(outcome, listeners), *outcome.note))


def _fate(outcome: Outcome, listeners: Mapping[int, str]) -> str:
    match outcome.fate:
        case Fate.REDIRECT:
            return f"redirected to {_led(outcome.port, listeners)}"
        case Fate.TPROXY:
            return f"given to a transparent socket at {_led(outcome.port, listeners)}"
        case Fate.DNAT:
            port = "" if outcome.port is None else f" port {outcome.port}"
            return f"destination becomes {outcome.address or 'another'}{port}"
        case fate:
            return _FATES[fate]


def _led(port: int | None, listeners: Mapping[int, str]) -> str:
    if port is None:
        return "the same port here"
    told = [words for words in (_PORTS.get(port), listeners.get(port)) if words]
    return f"port {port} ({'; '.join(told)})" if told else f"port {port}"
