"""Ways in which a namespace ceases to hold its plan, and what each is called."""

from __future__ import annotations

from collections.abc import Callable

from tests.netns.kernel.drift import handle, nft
from tests.netns.kernel.scratch import Scratch

Sabotage = Callable[[Scratch], None]


def deletes(table: str, chain: str, rule_id: str) -> Sabotage:
    return lambda pod: nft(pod, f"delete rule inet {table} {chain} handle {handle(pod, table, chain, rule_id)}")


def says(*commands: str) -> Sabotage:
    return lambda pod: nft(pod, *commands)


def runs(*commands: str) -> Sabotage:
    def run(pod: Scratch) -> None:
        for command in commands:
            pod.shell(*command.split())

    return run


def replaces(chain: str, rule_id: str, text: str) -> Sabotage:
    return lambda pod: nft(
        pod, f"replace rule inet headgate {chain} handle {handle(pod, 'headgate', chain, rule_id)} {text}"
    )


def moves_to_the_end(chain: str, rule_id: str, text: str) -> Sabotage:
    return lambda pod: nft(
        pod,
        f"delete rule inet headgate {chain} handle {handle(pod, 'headgate', chain, rule_id)}",
        f'add rule inet headgate {chain} {text} comment "headgate:{rule_id}"',
    )


RETURN_RULE = "ip rule 32764 (fwmark 0x111/0xfff lookup 100)"
RETURN_ROUTE = "ip route local default dev lo table 100"
CAPTURE = "tcp flags & (fin|syn|rst|ack) == syn counter redirect to :15001"

CASES: dict[str, tuple[Sabotage, tuple[str, ...]]] = {
    "one-rule": (deletes("headgate", "nat-output", "out-capture"), ("rule out-capture is missing",)),
    "rule-of-the-anchor": (deletes("headgate-anchor", "raw-output", "zone-out"), ("rule zone-out is missing",)),
    "chain-emptied": (
        says("flush chain inet headgate mangle-output"),
        ("chain mangle-output is empty: its 2 rules are missing",),
    ),
    "table-flushed": (
        says("flush table inet headgate"),
        (
            "chain in-forgotten is empty: its 9 rules are missing",
            "chain out-forgotten is empty: its 9 rules are missing",
            "chain in-datagram is empty: its 2 rules are missing",
            "chain out-datagram is empty: its 3 rules are missing",
            "chain mangle-prerouting is empty: its 2 rules are missing",
            "chain mangle-output is empty: its 2 rules are missing",
            "chain nat-prerouting is empty: its 8 rules are missing",
            "chain nat-output is empty: its 7 rules are missing",
        ),
    ),
    "chain": (
        says("flush chain inet headgate nat-prerouting", "delete chain inet headgate nat-prerouting"),
        ("chain nat-prerouting is missing",),
    ),
    "table": (says("delete table inet headgate"), ("table inet headgate is gone",)),
    "anchor": (says("delete table inet headgate-anchor"), ("table inet headgate-anchor is gone",)),
    "everything": (says("flush ruleset"), ("table inet headgate-anchor is gone", "table inet headgate is gone")),
    "dormant": (says("add table inet headgate { flags dormant; }"), ("table inet headgate has `flags dormant`",)),
    "other-port": (
        replaces(
            "nat-output",
            "out-capture",
            'tcp flags & (fin|syn|rst|ack) == syn counter redirect to :9 comment "headgate:out-capture"',
        ),
        ("rule out-capture is changed: tcp flags syn / fin,syn,rst,ack counter redirect to :9",),
    ),
    "constant-set": (
        replaces(
            "out-forgotten",
            "out-forgotten-proxy",
            'meta mark & 0xfff == 0x539 tcp sport { 15001, 15007 } counter drop comment "headgate:out-forgotten-proxy"',
        ),
        (
            "rule out-forgotten-proxy is changed: meta mark & 0x00000fff == 0x00000539 tcp sport { 15001, 15007 } "
            "counter drop",
        ),
    ),
    "constant-set-of-the-same-name": (
        moves_to_the_end(
            "mangle-output",
            "out-inspect",
            "meta l4proto tcp ct state { untracked, invalid } counter jump out-forgotten",
        ),
        (
            "rule out-inspect is changed: meta l4proto tcp ct state { invalid, untracked } counter jump out-forgotten",
            "rules out-inspect and out-datagram-inspect are swapped",
        ),
    ),
    "order": (
        moves_to_the_end("nat-output", "out-capture-skip-lo", 'oifname "lo" counter accept'),
        ("rule out-capture-skip-lo is moved behind out-capture",),
    ),
    "foreign-rule-first": (
        says("insert rule inet headgate nat-output tcp dport 443 accept"),
        ("a foreign rule in chain nat-output, before out-capture-skip-lo: tcp dport 443 accept",),
    ),
    "foreign-rule-last": (
        says("add rule inet headgate nat-output counter drop"),
        ("a foreign rule in chain nat-output, at the end: counter packets 0 bytes 0 drop",),
    ),
    "foreign-chain": (says("add chain inet headgate mine"), ("a foreign chain mine",)),
    "foreign-counter": (says("add counter inet headgate mine"), ("a foreign counter mine",)),
    "rule4": (runs("ip -4 rule del preference 32764"), (f"{RETURN_RULE} (IPv4) is missing",)),
    "rule6": (runs("ip -6 rule del preference 32764"), (f"{RETURN_RULE} (IPv6) is missing",)),
    "route4": (runs("ip -4 route flush table 100"), (f"{RETURN_ROUTE} (IPv4) is missing",)),
    "route6": (runs("ip -6 route flush table 100"), (f"{RETURN_ROUTE} (IPv6) is missing",)),
    "lo": (runs("ip link set lo down"), (f"{RETURN_ROUTE} (IPv6) is missing",)),
}
V6_HALF = (f"the IPv6 half of the return path is missing: {RETURN_RULE}, {RETURN_ROUTE}",)


def stated(changes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(change.replace("counter packets 0 bytes 0 drop", "counter drop") for change in changes)
