"""Each test that nft knows, asked of many packets: the rule's own counter says whether the kernel found that it holds.

The rules have no verdict, so every packet meets all of them. What nobody can tell from rule and packet is not here.
"""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.explain.interpret import explain
from agent.explain.nft_json import tables
from agent.explain.outcome import Result, Step
from agent.explain.packet import Packet
from agent.explain.tables import Hook, Ruleset
from agent.kernel.surroundings import KernelSurroundings
from tests.netns.explain.oracle import Scene
from tests.netns.explain.peers import LINKS, LISTENERS, packet6
from tests.netns.explain.test_iptables_counters import ARRIVING, OURS, SENT

EVERYWHERE = """
ip saddr 10.0.0.0/24
ip saddr != 10.0.0.0/24
ip daddr 10.0.0.9
ip daddr != { 10.0.0.9, 10.9.0.0/16 }
ip daddr 10.0.0.5-10.0.0.9
ip saddr & 255.0.0.255 == 10.0.0.5
ip saddr > 10.0.0.5
ip saddr @four
ip daddr != @four
ip saddr . tcp dport { 10.0.0.9 . 80, 10.0.0.0/24 . 20-25 }
ip daddr . tcp dport != { 10.0.0.9 . 80 }
ip daddr . meta l4proto . th dport { 10.0.0.9 . tcp . 80, 10.0.0.9 . udp . 53 }
ip saddr . tcp dport @pairs
ip6 saddr fd00::/64
ip6 saddr != fd00::/64
ip6 daddr { fd00::9, fd09::/64 }
ip6 daddr & ::ffff == ::9
ip protocol tcp
ip protocol != { tcp, udp }
ip6 nexthdr udp
ip frag-off & 0x1fff != 0
ip6 hoplimit > 1
ip ttl > 1
ip dscp cs0
ip dscp != cs1
meta nfproto ipv4
meta nfproto != ipv4
meta protocol ip
meta protocol { ip, ip6 }
meta l4proto tcp
meta l4proto != { tcp, udp }
meta l4proto 6-17
tcp dport 80
tcp dport != 80
tcp dport { 22, 80-90, 443 }
tcp dport != { 22, 80-90 }
tcp dport >= 443
tcp dport < 81
tcp dport @ports
tcp dport != @ports
tcp sport 1024-65535 tcp dport != 80-90
udp dport 53
udp dport != 53
sctp dport 80
meta l4proto { tcp, udp } th dport { 53, 80 }
tcp flags syn
tcp flags syn,ack
tcp flags { syn, ack }
tcp flags { syn, syn|ack }
tcp flags & (fin|syn|rst|ack) == syn
tcp flags & (syn|ack) != 0
tcp flags & syn == 0
tcp flags != syn
tcp flags == ack
tcp flags ! syn,ack
icmp type echo-request
icmp type != echo-request
icmp type { echo-reply, echo-request } icmp code 0
icmpv6 type echo-request
meta mark 0
meta mark & 0xfff == 0x539
meta mark & 0xfff != 0x539
meta mark & 0x1 != 0
meta mark & 0xfff { 0x0, 0x539 }
meta mark > 0xfff
meta mark 0x1000000/8
ct state new
ct state != new
ct state { new, established }
ct state != { new, invalid }
ct state new,established
ct state ! new
ct state ! established,related
ct state & (new|established) == new
ct state invalid
ct state != invalid,new
ct state @states
ct status dnat
ct status & dnat == 0
ct status ! snat,dnat
ct status & (snat|dnat) != 0
ct direction original
ct direction != reply
ct mark 0
ct mark & 0xff != 0
ct zone 0
ct original ip saddr 10.0.0.0/24
ct original ip daddr != 10.0.0.9
ct original ip6 daddr fd00::9
ct protocol tcp
ct l3proto ipv4
meta l4proto tcp ct original proto-dst 80
meta l4proto tcp ct original proto-dst != 80
fib daddr type local
fib daddr type != local
fib daddr type { unicast, multicast }
fib saddr type local
fib saddr type unicast
tcp dport vmap { 80 : continue, 81-99 : continue }
ip daddr vmap { 10.0.0.9 : continue, 10.9.0.0/16 : continue }
"""
OUTPUT = """
oifname lo
oifname != lo
oifname "eth*"
oifname != "eth*"
oifname { lo, "eth*" }
oifname @links
oif lo
oif != lo
iifname lo
iifname != lo
iifname != "eth*"
iif != lo
iifname . tcp dport { lo . 80 }
meta skuid 1000
meta skuid != 1000
meta skuid { 0, 999-1001 }
meta skgid 1337
meta skgid != 1337
meta skuid . meta skgid { 1000 . 1000, 0 . 1337 }
oifname . meta skuid { "eth0" . 0, "lo" . 1000 }
meta oiftype loopback
meta iiftype != ether
"""
PREROUTING = """
iifname eth0
iifname != eth0
iifname "eth*"
iifname != "net*"
iifname { eth0, "net*" }
iif != lo
oifname != lo
oifname lo
meta iiftype ether
meta oiftype != ether
meta pkttype host
fib saddr . iif oif missing
fib saddr . iif oif exists
fib saddr . iif oif != 0
fib daddr . iif type local
fib saddr . iif type != local
meta skuid 0
meta skuid != 0
meta l4proto tcp socket transparent 1
meta l4proto tcp socket transparent 0
meta l4proto tcp socket wildcard 0
"""
CHANGES = """
meta mark set 0xabcd1234
meta mark set meta mark & 0xfffff000 | 0x111
meta mark set meta mark xor 0x4000
meta mark set ct mark
meta mark set ct mark & 0xff00
meta mark set tcp dport map { 80 : 0x50, 81-90 : 0x51 }
meta mark set ip daddr map @marks
meta mark set ip saddr . tcp dport map { 10.0.0.9 . 80 : 0x99 }
ct mark set meta mark
ct mark set meta mark or 0xf
ct mark set ct mark xor 0xff
ct mark set 0x5
ip dscp set cs1
"""
BITS = [f"{mark} & {1 << bit:#x} == {1 << bit:#x}" for mark in ("meta mark", "ct mark") for bit in range(32)]
SETS = """
	set four { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 8.8.8.8 }; }
	set pairs { type ipv4_addr . inet_service; elements = { 10.0.0.9 . 80, 10.0.0.5 . 80 }; }
	set ports { type inet_service; flags interval; elements = { 22, 80-90 }; }
	set states { type ct_state; elements = { new, established }; }
	set links { type ifname; flags interval; elements = { "eth*", "lo" }; }
	map marks { type ipv4_addr : mark; flags interval; elements = { 10.0.0.0/28 : 0x10, 10.9.0.5 : 0x20 }; }
"""
TABLE, CHAIN = "counted", "mine"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Scene(links=LINKS, listeners=LISTENERS) as made:
        yield made


def script(hook: Hook, lines: list[str]) -> str:
    rules = "\n".join(f"\t\t{line} counter" for line in lines)
    jump = f"meta mark & {OURS:#x} == {OURS:#x} jump {CHAIN}" if hook is Hook.OUTPUT else f"jump {CHAIN}"
    return (
        f"table inet {TABLE} {{{SETS}\tchain {CHAIN} {{\n{rules}\n\t}}\n"
        f"\tchain base {{\n\t\ttype filter hook {hook.value} priority -150;\n\t\t{jump}\n\t}}\n}}\n"
    )


def met(scene: Scene, packet: Packet, document: str) -> list[bool | None]:
    """Of each rule whether it held; None: nobody can tell."""
    explanation = scene.pod.run(lambda: explain(Ruleset(tables(document)), packet, KernelSurroundings()))
    return [
        None if step.result is Result.PERHAPS else step.result is Result.WENT_ON
        for step in explanation.path
        if isinstance(step, Step) and step.chain == CHAIN and step.rule is not None
    ]


def counters(document: str) -> list[int]:
    """Of the rules; each has one."""
    return [
        next(statement["counter"]["packets"] for statement in one["rule"]["expr"] if "counter" in statement)
        for one in json.loads(document)["nftables"]
        if "rule" in one and one["rule"]["chain"] == CHAIN
    ]


def differences(scene: Scene, hook: Hook, lines: list[str], packets: tuple[Packet, ...]) -> tuple[list[str], int]:
    """What was wrongly told; and how often nobody could tell."""
    if hook is Hook.OUTPUT:
        packets = tuple(replace(packet, mark=packet.mark | OURS) for packet in packets)
    wrong, unknown = [], 0
    try:
        scene.nft(script(hook, lines))
        listed = scene.pod.shell("nft", "-j", "list", "ruleset")
        before = counters(listed)
        for packet in packets:
            said = met(scene, packet, listed)
            scene.send(packet)
            after = counters(scene.pod.shell("nft", "-j", "list", "ruleset"))
            unknown += said.count(None)
            wrong += [
                f"{line} {'held' if now != then else 'did not hold'} for {packet}"
                for line, held, then, now in zip(lines, said, before, after, strict=True)
                if held is not None and held != (now != then)
            ]
            before = after
    finally:
        scene.clear()
    return wrong, unknown


def of_both_families(packets: tuple[Packet, ...]) -> tuple[Packet, ...]:
    return (*packets, *(six for packet in packets if (six := packet6(packet)) is not None))


@pytest.mark.parametrize(
    ("hook", "more", "packets"),
    [(Hook.OUTPUT, OUTPUT, SENT), (Hook.PREROUTING, PREROUTING, ARRIVING)],
    ids=["sent", "arriving"],
)
def test_a_test_holds_when_the_kernel_counts(scene: Scene, hook: Hook, more: str, packets: tuple[Packet, ...]) -> None:
    lines = (EVERYWHERE + more).replace("\n\n", "\n").split("\n")[1:-1]
    asked = of_both_families(packets)
    wrong, unknown = differences(scene, hook, lines, asked)
    assert not wrong, "\n".join(wrong)
    assert unknown < len(lines) * len(asked) // 10


@pytest.mark.parametrize("change", CHANGES.split("\n")[1:-1])
def test_marks_are_what_the_kernel_makes_of_them(scene: Scene, change: str) -> None:
    lines = ["meta mark set 0x0badcafe", "ct mark set 0x0f0f5a5a", change, *BITS]
    wrong, unknown = differences(scene, Hook.PREROUTING, lines, ARRIVING[:2])
    assert not wrong, "\n".join(wrong)
    assert unknown == 0
