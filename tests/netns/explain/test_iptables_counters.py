"""Each match of iptables, asked of many packets: the rule's own counter says whether the kernel found that it holds.

The rules have no target, so every packet meets all of them. What nobody can tell from rule and packet is not here.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.explain.interpret import explain
from agent.explain.outcome import Explanation, Result, Step
from agent.explain.packet import ACK, ConntrackState, Packet
from agent.explain.tables import Hook, Ruleset
from agent.kernel.surroundings import KernelSurroundings
from agent.ruleset import whole
from tests.netns.explain.oracle import Scene
from tests.netns.explain.peers import LINKS, LISTENERS, into, out, packet6

ESTABLISHED, INVALID = ConntrackState.ESTABLISHED, ConntrackState.INVALID
EVERYWHERE = """
-s 10.0.0.0/24
! -s 10.0.0.0/24
-d 10.0.0.9/32
! -d 10.0.0.9/32
-s 10.0.0.0/255.0.0.255
! -d 0.0.0.9/0.0.0.255
-p tcp
! -p tcp
-p udp
-p icmp
-p 132
-p tcp -m tcp --dport 80
-p tcp -m tcp ! --dport 80
-p tcp -m tcp --sport 1024:65535 ! --dport 80:90
-p tcp -m tcp --sport :1023
-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN
-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN
-p tcp -m tcp --tcp-flags ALL NONE
-p tcp -m tcp --tcp-flags ALL ACK
-p tcp -m tcp --tcp-flags SYN,FIN SYN,FIN
-p udp -m udp --dport 53
-p udp -m udp ! --dport 53
-p sctp -m sctp --dport 80
-p tcp -m multiport --dports 22,80:90,443
-p tcp -m multiport ! --dports 22,80:90,443
-p tcp -m multiport --sports 1:1024,40000
-p udp -m multiport --ports 53,40000
-p udp -m multiport ! --ports 53,40000
-p sctp -m multiport --dports 80
-p icmp -m icmp --icmp-type 8
-p icmp -m icmp ! --icmp-type 8/0
-p icmp -m icmp ! --icmp-type 3/1
-p icmp -m icmp --icmp-type any
-m mark --mark 0x539/0xfff
-m mark ! --mark 0x539/0xfff
-m mark --mark 0x0
-m connmark --mark 0x0
-m connmark ! --mark 0x0
-m iprange --src-range 10.0.0.5-10.0.0.9
-m iprange ! --dst-range 10.0.0.5-10.0.0.9
-m addrtype --dst-type LOCAL
-m addrtype ! --dst-type LOCAL
-m addrtype --src-type LOCAL
-m addrtype --dst-type UNICAST
-m addrtype --dst-type BROADCAST,MULTICAST
-m addrtype ! --src-type LOCAL,BROADCAST
-m conntrack --ctstate NEW
-m conntrack --ctstate RELATED,ESTABLISHED
-m conntrack ! --ctstate NEW
-m conntrack --ctstate INVALID
-m conntrack ! --ctstate INVALID,UNTRACKED
-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT
-m conntrack --ctstate DNAT
-m conntrack ! --ctstate SNAT,DNAT
-m conntrack --ctdir ORIGINAL
-m conntrack --ctdir REPLY
-m conntrack --ctproto 6
-m conntrack ! --ctproto 17
-m conntrack --ctorigdst 10.0.0.9 --ctorigdstport 80
-m conntrack --ctstate NEW,INVALID --ctorigdst 10.0.0.9
-m conntrack ! --ctorigsrc 10.0.0.0/24
-m conntrack --ctorigdstport 79:81
-m conntrack --ctstatus NONE
-m state --state NEW
-m state ! --state NEW
-m recent --set --name hg --mask 255.255.255.255 --rsource
"""
OUTPUT = """
-o lo
! -o lo
-o eth0
-o eth+
! -o eth+
-m owner --uid-owner 1000
-m owner ! --uid-owner 1000
-m owner --uid-owner 999-1001
-m owner ! --uid-owner 0-999
-m owner --gid-owner 1337
-m owner ! --gid-owner 1337
-m owner --uid-owner 1000 ! --gid-owner 1000
-m owner --socket-exists
-m owner ! --socket-exists
-i lo
! -i lo
! -i eth+
"""
PREROUTING = """
-i eth0
! -i eth0
-i eth+
! -i net+
-m rpfilter
-m rpfilter --invert
-p tcp -m socket --nowildcard
-p tcp -m socket
-p tcp -m socket --transparent --nowildcard
-m addrtype --dst-type LOCAL --limit-iface-in
-m addrtype ! --src-type LOCAL --limit-iface-in
"""
SENT = (
    out("10.0.0.9 80"),
    out("10.0.0.9 81", uid=0, gid=1337, mark=0x539),
    out("10.9.0.9 22", uid=1001, source="10.9.0.5 40000"),
    out("10.0.0.9 53", proto="udp", source="10.0.0.5 40000", mark=0xF539),
    out("8.8.8.8 53", proto="udp"),
    out("8.8.8.8", proto="icmp"),
    out("10.0.0.9 80", proto="sctp"),
    out("127.0.0.1 15001", gid=1337),  # nobody answers there
    out("10.0.0.5 15006"),
    out("224.0.0.251 5353", proto="udp", source="10.0.0.5"),
    replace(out("10.0.0.9 80", source="10.0.0.5 41000", state=ESTABLISHED), tcp_flags=ACK),
    out("10.0.0.9 80", state=INVALID),
)
ARRIVING = (
    into("10.0.0.5 80"),
    into("10.0.0.5 15001"),
    into("10.0.0.5 22", source="10.0.0.77 1000"),
    into("10.9.0.5 443", source="10.9.0.9 40000", iface="net1"),
    into("10.0.0.5 80", source="10.9.0.9", iface="eth0"),
    into("10.9.0.5 80"),
    into("10.0.0.5 53", source="8.8.8.8 40000", proto="udp"),
    into("10.0.0.5", proto="icmp"),
    into("10.9.0.9 80", proto="sctp"),
    into("224.0.0.251 5353", proto="udp"),
    replace(into("10.0.0.5 80", source="10.0.0.9 41000", state=ESTABLISHED), tcp_flags=ACK),
    replace(into("10.0.0.5 80", state=INVALID), tcp_flags=0),
)
IPV6 = """
-s fd00::/64
! -s fd00::/64
-d fd00::9/128
! -d ::9/::ffff
-p tcp
-p ipv6-icmp
! -p udp
-p ipv6-icmp -m icmp6 --icmpv6-type 128
-p ipv6-icmp -m icmp6 ! --icmpv6-type 128/0
-p tcp -m tcp ! --dport 80
-p udp -m multiport --ports 53,40000
-m iprange --src-range fd00::5-fd00::9
-m addrtype --dst-type LOCAL
-m addrtype ! --src-type LOCAL
-m addrtype --dst-type UNICAST
-m addrtype ! --dst-type UNICAST
-m addrtype --src-type UNICAST --dst-type MULTICAST
-m conntrack --ctstate NEW
-m conntrack ! --ctstate NEW,RELATED
-m conntrack --ctorigdst fd00::9 --ctorigdstport 80
-m conntrack ! --ctorigsrc fd00::/64
-m hl --hl-gt 1
"""
CHAIN = "MINE"
OURS = 0x1000000
"""A mark's bit, that nothing has which the kernel itself sends: neighbours, multicast listeners."""
JUMPS = {
    Hook.OUTPUT: f"-A OUTPUT -m mark --mark {OURS:#x}/{OURS:#x} -j {CHAIN}",
    Hook.PREROUTING: f"-A PREROUTING -j {CHAIN}",
}
COUNTED = re.compile(rf"^\[(\d+):\d+\] -A {CHAIN}", re.MULTILINE)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Scene(links=LINKS, listeners=LISTENERS) as made:
        yield made


def met(explanation: Explanation) -> list[bool | None]:
    """Of each rule whether it held; None: nobody can tell."""
    return [
        None if step.result is Result.PERHAPS else step.result is Result.WENT_ON
        for step in explanation.path
        if isinstance(step, Step) and step.chain == CHAIN and step.rule is not None
    ]


def explained(packet: Packet) -> Explanation:
    def ask(ruleset: Ruleset) -> Explanation:
        return explain(ruleset, packet, KernelSurroundings())

    return whole.settled(ask)


def counters(scene: Scene, tool: str) -> list[int]:
    return [int(packets) for packets in COUNTED.findall(scene.pod.shell(f"{tool}-save", "-c", "-t", "mangle"))]


def differences(scene: Scene, tool: str, hook: Hook, lines: list[str], packets: tuple[Packet, ...]) -> list[str]:
    if hook is Hook.OUTPUT:
        packets = tuple(replace(packet, mark=packet.mark | OURS) for packet in packets)
    wrong = []
    try:
        ours = JUMPS[hook], *(f"-A {CHAIN} {line}" for line in lines)
        scene.restore(tool, "\n".join(("*mangle", f":{CHAIN} -", *ours, "COMMIT")))
        before = [0] * len(lines)
        for packet in packets:
            said = met(scene.pod.run(explained, packet))
            scene.send(packet)
            after = counters(scene, tool)
            wrong += [
                f"{line} {'held' if now != then else 'did not hold'} for {packet}"
                for line, held, then, now in zip(lines, said, before, after, strict=True)
                if held is not None and held != (now != then)
            ]
            before = after
    finally:
        scene.clear()
    return wrong


@pytest.mark.parametrize(("family", "every"), [(4, EVERYWHERE), (6, IPV6)], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("hook", "more", "packets"),
    [(Hook.OUTPUT, OUTPUT, SENT), (Hook.PREROUTING, PREROUTING, ARRIVING)],
    ids=["sent", "arriving"],
)
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_match_holds_when_the_kernel_counts(
    scene: Scene, variant: str, family: int, every: str, hook: Hook, more: str, packets: tuple[Packet, ...]
) -> None:
    tool = f"{'iptables' if family == 4 else 'ip6tables'}-{variant}"
    if family == 6:
        packets = tuple(six for packet in packets if (six := packet6(packet)) is not None)
    wrong = differences(scene, tool, hook, (every + more).split("\n")[1:-1], packets)
    assert not wrong, "\n".join(wrong)


MARKED = ("-j MARK --set-mark 0xabcd1234", "-j CONNMARK --set-mark 0x0f0f5a5a")
MARKS = """
-j MARK --set-xmark 0x539/0xfff
-j MARK --set-mark 0x539/0xf
-j MARK --and-mark 0xff00
-j MARK --or-mark 0xff
-j MARK --xor-mark 0xffff
-j MARK --set-xmark 0xff/0xf0
-j CONNMARK --set-xmark 0x111/0xfff
-j CONNMARK --set-mark 0x111/0xf
-j CONNMARK --and-mark 0xff00
-j CONNMARK --or-mark 0xff
-j CONNMARK --xor-mark 0xffff
-j CONNMARK --save-mark
-j CONNMARK --save-mark --nfmask 0xff00 --ctmask 0xf0f0
-j CONNMARK --restore-mark
-j CONNMARK --restore-mark --nfmask 0xff00 --ctmask 0xf0f0
-j CONNMARK --restore-mark --mask 0xfff
"""
BITS = [f"-m {mark} --mark {1 << bit:#x}/{1 << bit:#x}" for mark in ("mark", "connmark") for bit in range(32)]


def test_marks_are_what_the_kernel_makes_of_them(scene: Scene) -> None:
    lines = [line for target in MARKS.split("\n")[1:-1] for line in (*MARKED, target, *BITS)]
    wrong = differences(scene, "iptables-nft", Hook.PREROUTING, lines, ARRIVING[:1])
    assert not wrong, "\n".join(wrong)
