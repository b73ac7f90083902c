"""Random iptables rules as iptables-restore takes them, of either family and for either make."""

from random import Random
from typing import Final

from tests.netns.explain.universe import MARKS, NETWORKS, PORTS, UIDS, everyone

_HOOKS: Final = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
_ARRIVING: Final = ("PREROUTING", "INPUT", "FORWARD")
_LEAVING: Final = ("OUTPUT", "FORWARD", "POSTROUTING")
_SENT: Final = ("OUTPUT", "POSTROUTING")
_CHANCE: Final = {"raw": 0.25, "mangle": 0.5, "nat": 1.0, "filter": 0.65}


class IptablesText:
    """All tables of one family. `catching`: how much of its traffic the nat table is to lead elsewhere."""

    def __init__(self, rng: Random, version: int, *, catching: float = 0.5) -> None:
        self.rng, self.version, self.catching = rng, version, catching
        self.zoned = False
        self.text = "\n".join(self._table(name) for name in _HOOKS if rng.random() < _CHANCE[name])

    def _table(self, name: str) -> str:
        rng = self.rng
        own = [f"MESH_{name.upper()}_{number}" for number in range(rng.randint(0, 2))]
        lines = [f"*{name}", *(f":{chain} - [0:0]" for chain in own)]
        if name == "filter" and rng.random() < 0.04:
            lines.append(f":{rng.choice(_HOOKS[name])} DROP [0:0]")
        for chain in own:
            hook = "OUTPUT" if name == "nat" else "any"
            lines += [f"-A {chain} {self._rule(name, hook, [])}" for _ in range(rng.randint(1, 4))]
        for hook in _HOOKS[name]:
            if rng.random() < 0.75:
                jumps = own if name != "nat" or hook == "OUTPUT" else []
                lines += [f"-A {hook} {self._rule(name, hook, jumps)}" for _ in range(rng.randint(1, 4))]
            if name == "nat" and hook in ("PREROUTING", "OUTPUT") and rng.random() < self.catching:
                lines.append(f"-A {hook} {self._catching(hook)}")
        return "\n".join((*lines, "COMMIT"))

    def _catching(self, hook: str) -> str:
        who = self.rng.choice(("", "", "-m owner ! --uid-owner 1337 ", "-m mark ! --mark 0x539/0xfff "))
        return f"-p tcp {who if hook == 'OUTPUT' else ''}-j REDIRECT --to-ports {self.rng.choice((15001, 15006))}"

    def _rule(self, table: str, hook: str, jumps: list[str]) -> str:
        rng = self.rng
        protocol = rng.choices(("tcp", "udp", "", "icmp", "sctp", "!"), (50, 14, 24, 4, 4, 4))[0]
        words: list[str] = []
        if protocol == "!":
            words.append("! -p udp")
        elif protocol == "icmp":
            words.append("-p icmp" if self.version == 4 else "-p ipv6-icmp")
        elif protocol:
            words.append(f"-p {protocol}")
        several = rng.choices((0, 1, 2, 3), (15 if table == "nat" else 0, 45, 35, 10))[0]
        for match in rng.sample((self._address, self._port, self._more, self._interface, self._owner), several):
            drawn = match(protocol, hook)
            if drawn:
                words.append(drawn)
        words.sort(key=lambda word: word.startswith("-m"))  # what the protocol's own options need stands first
        ending = self._target(table, hook, protocol, jumps)
        return " ".join((*words, ending))

    # ── What a rule reads ──────────────────────────────────────────────────────────────────────────────────────────
    def _not(self) -> str:
        return self.rng.choice(("", "", "! "))

    def _address(self, protocol: str, hook: str) -> str:
        rng = self.rng
        where = rng.choice((rng.choice(everyone(self.version)), rng.choice(NETWORKS[self.version])))
        flag = rng.choices(("-d", "-s"), (75, 25))[0]
        first, last = {4: ("10.0.0.0", "10.1.255.255"), 6: ("fd00::", "fd01:ffff::")}[self.version]
        if rng.random() < 0.12:
            return f"-m iprange {self._not()}--{'dst' if flag == '-d' else 'src'}-range {first}-{last}"
        return f"{self._not()}{flag} {where}"

    def _port(self, protocol: str, hook: str) -> str:
        rng = self.rng
        if protocol == "icmp":
            kind = "echo-request" if rng.random() < 0.7 else "echo-reply"
            return f"-m icmp --icmp-type {kind}" if self.version == 4 else f"-m icmp6 --icmpv6-type {kind}"
        if protocol not in ("tcp", "udp", "sctp"):
            return ""
        ports = rng.sample(PORTS, 3)
        drawn = [
            f"-m {protocol} {self._not()}--dport {ports[0]}", f"-m {protocol} {self._not()}--dport {ports[0]}",
            f"-m {protocol} --dport 1:{ports[1]}", f"-m {protocol} {self._not()}--sport 1024:65535",
            f"-m multiport {self._not()}--dports {','.join(map(str, ports))}", "-m multiport --dports 80,1000:9999",
            f"-m multiport {self._not()}--ports {ports[2]}", f"-m multiport {self._not()}--sports 1:1023",
        ]  # fmt: skip
        if protocol == "tcp":
            drawn += [
                f"-m tcp {self._not()}--syn", f"-m tcp {self._not()}--tcp-flags SYN,ACK SYN",
                "-m tcp --tcp-flags FIN,SYN FIN,SYN", f"-m tcp --dport {ports[0]} --syn",
            ]  # fmt: skip
        return rng.choice(drawn)

    def _interface(self, protocol: str, hook: str) -> str:
        rng = self.rng
        drawn = [f"{self._not()}-i {rng.choice(('eth0', 'lo', 'net1', 'eth+'))}"] if hook in _ARRIVING else []
        drawn += [f"{self._not()}-o {rng.choice(('eth0', 'lo', 'net1', 'n+'))}"] if hook in _LEAVING else []
        return rng.choice(drawn) if drawn else ""

    def _owner(self, protocol: str, hook: str) -> str:
        if hook not in _SENT:
            return self._more(protocol, hook)
        rng = self.rng
        return rng.choice(
            (
                f"-m owner {self._not()}--uid-owner {rng.choice(UIDS)}",
                f"-m owner {self._not()}--gid-owner {rng.choice(UIDS)}",
                f"-m owner {self._not()}--uid-owner 1000-1999",
                f"-m owner --uid-owner {rng.choice(UIDS)} ! --gid-owner {rng.choice(UIDS)}",
                f"-m owner {self._not()}--socket-exists",
            )
        )

    def _more(self, protocol: str, hook: str) -> str:
        rng = self.rng
        mark = rng.choice((f"{rng.choice(MARKS):#x}", f"{rng.choice(MARKS):#x}/0xfff", "0x1/0x1"))
        states = rng.choice(("NEW", "ESTABLISHED,RELATED", "INVALID", "NEW,ESTABLISHED", "UNTRACKED", "DNAT", "SNAT"))
        kinds = rng.choice(("LOCAL", "UNICAST", "MULTICAST", *(["LOCAL,BROADCAST"] if self.version == 4 else [])))
        drawn = [
            f"-m mark {self._not()}--mark {mark}", f"-m connmark {self._not()}--mark {mark}",
            f"-m conntrack {self._not()}--ctstate {states}", "-m state --state NEW,ESTABLISHED",
            f"-m addrtype {self._not()}--dst-type {kinds}", f"-m addrtype {self._not()}--src-type {kinds}",
            f"-m conntrack --ctproto {rng.choice(('tcp', '17'))}", "-m conntrack --ctdir ORIGINAL",
            f"-m conntrack {self._not()}--ctorigdst {rng.choice(everyone(self.version))}",
            "-m comment --comment \"a -j DROP in words\"", "-m statistic --mode random --probability 0.5",
        ]  # fmt: skip
        if protocol == "tcp":
            drawn.append(f"-m conntrack --ctproto tcp --ctorigdstport {rng.choice(PORTS)}")
        if hook in ("PREROUTING", "INPUT") and protocol == "tcp":
            drawn += ["-m socket", "-m socket --transparent", "-m socket --nowildcard --transparent"]
        if hook in ("PREROUTING", "INPUT"):
            drawn.append("-m addrtype --dst-type LOCAL --limit-iface-in")
        weights = [1 if "statistic" in word else 6 for word in drawn]
        return rng.choices(drawn, weights)[0]

    # ── What it does ───────────────────────────────────────────────────────────────────────────────────────────────
    def _target(self, table: str, hook: str, protocol: str, jumps: list[str]) -> str:
        rng = self.rng
        if jumps and rng.random() < 0.3:
            return f"-{rng.choice('jjg')} {rng.choice(jumps)}"
        if table == "nat":
            return self._nat(hook, protocol)
        drawn = [("-j ACCEPT", 10), ("-j DROP", 11), ("-j RETURN", 8), ("", 2), ('-j LOG --log-prefix "seen "', 2)]
        mark = f"{rng.choice(MARKS):#x}"
        if table == "mangle":
            drawn += [
                (f"-j MARK --set-xmark {mark}/0xfff", 6), (f"-j MARK --set-mark {mark}", 6),
                ("-j MARK --or-mark 0x1", 3),
                ("-j MARK --and-mark 0xff00", 2), ("-j MARK --xor-mark 0x10", 2), ("-j CONNMARK --save-mark", 4),
                ("-j CONNMARK --restore-mark", 4), (f"-j CONNMARK --set-mark {mark}", 4),
                ("-j CONNMARK --save-mark --nfmask 0xfff --ctmask 0xfff", 3),
                ("-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", 3),
            ]  # fmt: skip
            if hook == "PREROUTING" and protocol in ("tcp", "udp"):
                port = rng.choice((15001, 15001, 15006, 15099))
                drawn += [(f"-j TPROXY --on-port {port} --tproxy-mark {rng.choice(('0x111/0xfff', '0x0/0x0'))}", 14)]
        if table == "raw":
            self.zoned = True
            drawn += [("-j CT --notrack", 14), ("-j NOTRACK", 4), (f"-j CT --zone {rng.randint(1, 3)}", 14)]
        if table == "filter" and hook != "any":
            drawn += [("-j REJECT", 4), (self._reject(protocol), 10)]
        return rng.choices([word for word, _ in drawn], [weight for _, weight in drawn])[0]

    def _reject(self, protocol: str) -> str:
        kinds = {4: ("icmp-host-unreachable", "icmp-admin-prohibited", "icmp-proto-unreachable"),
                 6: ("icmp6-adm-prohibited", "icmp6-addr-unreachable", "icmp6-no-route")}[self.version]  # fmt: skip
        drawn = [*kinds, *(["tcp-reset"] * 3 if protocol == "tcp" else [])]
        return f"-j REJECT --reject-with {self.rng.choice(drawn)}"

    def _nat(self, hook: str, protocol: str) -> str:
        rng = self.rng
        ported = protocol in ("tcp", "udp")
        to = rng.choice(everyone(self.version))
        host = to if self.version == 4 else f"[{to}]"
        if hook in ("PREROUTING", "OUTPUT"):
            drawn = [("-j RETURN", 6), ("-j ACCEPT", 4), ("-j REDIRECT", 3), (f"-j DNAT --to-destination {to}", 4)]
            if ported:
                drawn += [
                    (f"-j REDIRECT --to-ports {rng.choice((15001, 15006, 15053))}", 60),
                    (f"-j DNAT --to-destination {host}:8080", 6), ("-j DNAT --to-destination :15001", 4),
                ]  # fmt: skip
        elif hook == "POSTROUTING":
            drawn = [("-j MASQUERADE", 12), ("-j RETURN", 6), ("-j ACCEPT", 6)]
            drawn += [(f"-j SNAT --to-source {'10.0.0.5' if self.version == 4 else 'fd00::5'}", 12)]
        else:
            drawn = [("-j ACCEPT", 4), ("-j RETURN", 4)]
            drawn += [(f"-j SNAT --to-source {'10.0.0.5' if self.version == 4 else 'fd00::5'}", 4)]
        return rng.choices([word for word, _ in drawn], [weight for _, weight in drawn])[0]
