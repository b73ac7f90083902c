"""Random tables of nft's: every expression and statement that is interpreted, drawn from the universe."""

import re
from collections.abc import Callable
from random import Random
from typing import Final

from tests.netns.explain.universe import MARKS, NETWORKS, PORTS, UIDS, everyone

_SYN: Final = "tcp flags & (fin | syn | rst | ack) == syn"
_INTERFACES: Final = ("eth0", "net1", "lo")


class NftTable:
    """One table: `text` is what `nft -f` takes. `family`: inet, ip or ip6. `catching`: how much of its traffic its NAT
    chains are to lead elsewhere."""

    def __init__(self, rng: Random, family: str, name: str, *, catching: float = 0.5) -> None:
        self.rng, self.family, self.name, self.catching = rng, family, name, catching
        self.versions = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}[family]
        self.lines: list[str] = []
        self.jumps: list[str] = []
        self.zoned = False
        self._sets()
        self._chains()

    @property
    def text(self) -> str:
        return "\n".join((f"table {self.family} {self.name} {{", *self.lines, "}"))

    # ── Sets and maps ──────────────────────────────────────────────────────────────────────────────────────────────
    def _sets(self) -> None:
        rng = self.rng
        for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            if version not in self.versions:
                continue
            networks = ", ".join(_apart(rng, version))
            self.lines += [
                f" set nets{version} {{ type {kind}; flags interval; elements = {{ {networks} }}; }}",
                f" set hosts{version} {{ type {kind}; elements = {{ {', '.join(self._some(everyone(version)))} }}; }}",
                f" set pairs{version} {{ type {kind} . inet_service; elements = {{ {self._pairs(version)} }}; }}",
                f" map to{version} {{ type inet_service : {kind}; elements = {{ {self._led(version)} }}; }}",
            ]
        ports = self._some(PORTS)
        self.lines += [
            f" set ports {{ type inet_service; elements = {{ {', '.join(map(str, ports))} }}; }}",
            " map away { type inet_service : inet_service; elements = { 80 : 15001, 443 : 15006, 8080 : 15001 }; }",
            " map marks { type inet_service : mark; elements = { 80 : 0x111, 3000 : 0x539 }; }",
        ]

    def _some(self, of: tuple[object, ...]) -> list[str]:
        return [str(one) for one in self.rng.sample(of, self.rng.randint(2, min(4, len(of))))]

    def _pairs(self, version: int) -> str:
        drawn = {(address, self.rng.choice(PORTS)) for address in self._some(everyone(version))}
        return ", ".join(f"{address} . {port}" for address, port in sorted(drawn))

    def _led(self, version: int) -> str:
        ports = self.rng.sample(PORTS, 3)
        return ", ".join(f"{port} : {self.rng.choice(everyone(version))}" for port in ports)

    # ── Chains ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _chains(self) -> None:
        rng = self.rng
        for number in range(rng.randint(1, 2)):
            self._chain(f"sub{number}", "", "filter", "any", rng.randint(1, 3))
            self.jumps.append(f"sub{number}")
        bases = [
            ("raw_out", "filter", "output", -300), ("raw_in", "filter", "prerouting", -300),
            ("route", "route", "output", -150), ("mangle", "filter", "prerouting", -150),
            ("nat_out", "nat", "output", -100), ("nat_in", "nat", "prerouting", -100),
            ("in", "filter", "input", 0), ("through", "filter", "forward", 0), ("out", "filter", "output", 0),
            ("nat_post", "nat", "postrouting", 100), ("nat_input", "nat", "input", 100),
            ("post", "filter", "postrouting", 0), ("late", "filter", "output", rng.choice((-250, 10, 50))),
            ("late_in", "filter", "input", rng.choice((-10, 10))),
        ]  # fmt: skip
        for name, kind, hook, priority in bases:
            chance = 1.0 if kind == "nat" and hook in ("output", "prerouting") else 0.3
            if rng.random() > chance:
                continue
            drops = kind != "nat" and hook in ("input", "forward", "output") and rng.random() < 0.04
            head = f"type {kind} hook {hook} priority {priority}; policy {'drop' if drops else 'accept'};"
            self._chain(name, head, kind, hook, rng.randint(1, 5), raw=priority <= -300)

    def _chain(self, name: str, head: str, kind: str, hook: str, count: int, *, raw: bool = False) -> None:
        rules = [self._rule(kind, hook, raw) for _ in range(count)]
        if kind == "nat" and hook in ("output", "prerouting") and self.rng.random() < self.catching:
            rules.append(self._catching(hook))
        self.lines += [f" chain {name} {{", *([f"  {head}"] if head else []), *(f"  {rule}" for rule in rules), " }"]

    def _catching(self, hook: str) -> str:
        """What a mesh does: nearly all of TCP."""
        who = self.rng.choice(("", "", "meta skuid != 1337 ", "meta mark != 0x539 ")) if hook == "output" else ""
        to = self.rng.choice(("redirect to :15001", "redirect to :15006", "redirect to :tcp dport map @away"))
        return f"{who}meta l4proto tcp {to}"

    def _rule(self, kind: str, hook: str, raw: bool) -> str:
        """nft refuses what can never match: another is drawn."""
        rng = self.rng
        while True:
            several = rng.choices((0, 1, 2, 3), (12 if kind == "nat" else 0, 50, 35, 10))[0]
            parts = [rng.choice(_MATCHES)(self, hook) for _ in range(several)]
            ending = self._ending(kind, hook, raw, " ".join(parts))
            rule = " ".join((*parts, *(["counter"] if rng.random() < 0.2 else []), ending))
            if not _contradicts(rule):
                return rule

    # ── What a rule does ───────────────────────────────────────────────────────────────────────────────────────────
    def _ending(self, kind: str, hook: str, raw: bool, before: str) -> str:
        rng = self.rng
        if kind == "nat" and hook in ("output", "prerouting"):
            return rng.choices((self._led_away(before), "accept", "return", "counter"), (86, 5, 5, 4))[0]
        if kind == "nat":
            return self._source(before, hook)
        if raw and rng.random() < 0.5:
            if rng.random() < 0.5:
                self.zoned = True
                return f"ct zone set {rng.randint(1, 3)}"
            return "notrack"
        if hook == "prerouting" and kind == "filter" and rng.random() < 0.3:
            return self._tproxy(before)
        return self._plain(kind, hook)

    def _plain(self, kind: str, hook: str) -> str:
        rng = self.rng
        mark = f"{rng.choice(MARKS):#x}"
        marking = (
            f"meta mark set {mark}", f"meta mark set meta mark & 0xfffff000 | {mark}", f"ct mark set {mark}",
            "ct mark set meta mark", "meta mark set ct mark", "meta mark set meta mark ^ 0x1",
            "meta mark set tcp dport map @marks", "meta mark set ct mark & 0xfff | 0x400",
        )  # fmt: skip
        if kind == "route":
            return rng.choice(marking)
        choices: list[tuple[str, int]] = [
            ("accept", 12), ("drop", 12), ("return", 5), ("counter", 4), ("log prefix \"seen \"", 2), ("continue", 9),
            (rng.choice(marking), 16), (self._verdict_map(hook), 12), ("limit rate 1/second accept", 1),
            ("ip dscp set cs1" if 4 in self.versions else "counter", 9),
        ]  # fmt: skip
        if hook in ("input", "forward", "output"):
            choices.append((self._reject(), 14))
        if hook != "any":
            choices += [(f"{rng.choice(('jump', 'goto'))} {name}", 6) for name in self.jumps]
        return rng.choices([word for word, _ in choices], [weight for _, weight in choices])[0]

    def _reject(self) -> str:
        drawn = ["reject", "meta l4proto tcp reject with tcp reset"]
        if self.family == "inet":
            drawn += ["reject with icmpx type admin-prohibited", "reject with icmpx type port-unreachable"]
        elif self.family == "ip":
            drawn.append("reject with icmp type host-unreachable")
        else:
            drawn.append("reject with icmpv6 type addr-unreachable")
        return self.rng.choice(drawn)

    def _verdict_map(self, hook: str) -> str:
        rng = self.rng
        to = ["accept", "accept", "drop", "return", *([f"jump {name}" for name in self.jumps] if hook != "any" else [])]
        ports = rng.sample(PORTS, 3)
        key = rng.choice(("tcp dport", "th dport", "udp dport", "meta mark", "meta l4proto", "iifname", "ct state"))
        values: list[str] = {
            "meta mark": ["0x0", "0x111", "0x539"],
            "meta l4proto": ["tcp", "udp", "icmp"],
            "iifname": ['"eth0"', '"lo"', '"net*"'],
            "ct state": ["established", "invalid", "new"],
        }.get(key, [str(port) for port in ports])
        if key.endswith("dport") and rng.random() < 0.3:
            values = ["0-79", "80-100", str(rng.choice((443, 8080)))]
        elements = ", ".join(f"{value} : {rng.choice(to)}" for value in values)
        return f"{'meta l4proto { tcp, udp } ' if key == 'th dport' else ''}{key} vmap {{ {elements} }}"

    def _led_away(self, before: str) -> str:
        rng = self.rng
        ports = "" if "dport" in before or "l4proto tcp" in before else "meta l4proto tcp "
        drawn = [f"{ports}redirect to :{rng.choice((15001, 15006))}"] * 12
        drawn += [f"{ports}redirect to :tcp dport map @away", "meta l4proto { tcp, udp } redirect to :15001"]
        if not ports or rng.random() < 0.3:
            drawn.append("redirect" if "dport" in before else "meta l4proto tcp redirect")
        version = rng.choice(self.versions)
        if _suits(before, version):
            to = rng.choice(everyone(version))
            words = f"dnat {'ip' if version == 4 else 'ip6'} to" if self.family == "inet" else "dnat to"
            host = to if version == 4 else f"[{to}]"
            drawn += [
                f"{words} {to}", f"meta l4proto tcp {words} {host}:8080", f"{words} tcp dport map @to{version}",
                f"meta l4proto udp {words} {host}:15053",
            ]  # fmt: skip
        return rng.choice(drawn)

    def _source(self, before: str, hook: str) -> str:
        rng = self.rng
        version = rng.choice(self.versions)
        if not _suits(before, version) or (hook == "postrouting" and rng.random() < 0.5):
            return "masquerade" if hook == "postrouting" else "accept"
        words = f"snat {'ip' if version == 4 else 'ip6'} to" if self.family == "inet" else "snat to"
        where = {4: "10.0.0.5", 6: "fd00::5"}[version]
        return rng.choice((f"{words} {where}", "return", "accept", f"{words} {where}", "counter"))

    def _tproxy(self, before: str) -> str:
        rng = self.rng
        marked = rng.choice(("meta mark set 0x111 ", "meta mark set 0x111 ", ""))
        port = rng.choice((15001, 15006, 15099))
        accept = rng.choice((" accept", ""))
        families = [word for word, version in (("ip ", 4), ("ip6 ", 6)) if not _suits(before, 10 - version)]
        family = families[0] if families and self.family == "inet" else ""
        return f"meta l4proto tcp {marked}tproxy {family}to :{port}{accept}"

    # ── What a rule reads ──────────────────────────────────────────────────────────────────────────────────────────
    def address(self, hook: str) -> str:
        rng = self.rng
        version = rng.choice(self.versions)
        word = f"{'ip' if version == 4 else 'ip6'} {rng.choices(('daddr', 'saddr'), (70, 30))[0]}"
        one = rng.choice(everyone(version))
        network = rng.choice(NETWORKS[version])
        drawn = [
            f"{word} {one}", f"{word} != {one}", f"{word} {network}", f"{word} != {network}",
            f"{word} {{ {', '.join(self._some(everyone(version)))} }}", f"{word} @nets{version}",
            f"{word} != @nets{version}", f"{word} @hosts{version}",
        ]  # fmt: skip
        if version == 4:
            drawn += [f"{word} & 255.255.0.0 == 10.1.0.0", f"{word} 10.0.0.0-10.1.255.255", f"{word} > 10.5.0.0"]
        if word.endswith("daddr"):
            drawn.append(f"{word} . tcp dport @pairs{version}")
        return rng.choice(drawn)

    def port(self, hook: str) -> str:
        rng = self.rng
        word = rng.choice(("tcp dport",) * 6 + ("udp dport", "sctp dport", "tcp sport", "udp sport", "sctp sport"))
        if rng.random() < 0.12:
            word = rng.choice(("meta l4proto { tcp, udp } th dport", "meta l4proto { tcp, udp } th sport"))
        port = rng.choice(PORTS)
        if "sport" in word:
            return rng.choice((f"{word} != {port}", f"{word} > 1024", f"{word} {port}", f"{word} 1024-65535"))
        return rng.choice(
            (
                f"{word} {port}", f"{word} {port}", f"{word} != {port}", f"{word} {{ 80, 443, 3000-9999 }}",
                f"{word} {{ {', '.join(self._some(PORTS))} }}", f"{word} != {{ {', '.join(self._some(PORTS))} }}",
                f"{word} 1-{port}", f"{word} != 1-{port}", f"{word} < {port}", f"{word} >= {port}", f"{word} @ports",
                f"{word} <= {port}",
            )
        )  # fmt: skip

    def flags(self, hook: str) -> str:
        return self.rng.choice((_SYN, "tcp flags syn", "tcp flags & (syn | ack) == syn", "tcp flags != syn",
                                "tcp flags & (fin | syn) == fin | syn", "tcp flags ack", "tcp flags { syn, ack }",
                                "tcp flags & (syn | ack) != 0x0"))  # fmt: skip

    def owner(self, hook: str) -> str:
        rng = self.rng
        word, uid = rng.choice(("meta skuid", "meta skuid", "meta skgid")), rng.choice(UIDS)
        return rng.choice((f"{word} {uid}", f"{word} != {uid}", f"{word} {{ 0, 1337 }}", f"{word} 1000-1999",
                           f"{word} != {{ 1000, 2000 }}"))  # fmt: skip

    def mark(self, hook: str) -> str:
        rng = self.rng
        mark = f"{rng.choice(MARKS):#x}"
        word = rng.choice(("meta mark", "meta mark", "ct mark"))
        return rng.choice((f"{word} {mark}", f"{word} != {mark}", f"{word} & 0xfff == {mark}",
                           f"{word} & 0xfff != {mark}", f"{word} {{ 0x111, 0x539 }}", f"{word} & 0x1 == 0x1",
                           f"{word} 0x1-0x400"))  # fmt: skip

    def interface(self, hook: str) -> str:
        rng = self.rng
        word = rng.choice({"output": ("oifname",), "postrouting": ("oifname", "iifname"), "prerouting": ("iifname",),
                           "input": ("iifname",)}.get(hook, ("iifname", "oifname")))  # fmt: skip
        name = rng.choice(_INTERFACES)
        return rng.choice((f'{word} "{name}"', f'{word} != "{name}"', f'{word} "eth*"', f'{word} {{ "eth0", "net1" }}',
                           f"{word[:3]}type loopback",
                           f'{word[:3]} {name if name != "net1" else "lo"}'))  # fmt: skip

    def connection(self, hook: str) -> str:
        rng = self.rng
        drawn = [
            "ct state new", "ct state established,related", "ct state { new, established }", "ct state invalid",
            "ct state != new", "ct status dnat", "ct status & dnat == 0x0", "ct direction original",
            "ct l3proto ipv4 counter", "ct l3proto ipv4 counter", "ct l3proto ipv6 counter", "ct protocol tcp counter",
            f"meta l4proto tcp ct original proto-dst {rng.choice(PORTS)}", "ct status snat", "ct zone 0", "ct zone 1",
            "ct state untracked", "ct zone != 0", *("meta l4proto tcp ct original proto-src > 1000",) * 3,
        ]  # fmt: skip
        if 4 in self.versions:
            drawn += [
                f"ct original ip daddr {rng.choice(everyone(4))}",
                "ct original ip saddr 10.0.0.0/8",
                "ct original ip saddr != 10.9.0.0/16",
            ]
        if 6 in self.versions:
            drawn += [f"ct original ip6 daddr {rng.choice(everyone(6))}", *("ct original ip6 saddr fd00::/8",) * 3]
        return rng.choice(drawn)

    def protocol(self, hook: str) -> str:
        drawn = ["meta l4proto tcp", "meta l4proto { tcp, udp }", "meta l4proto != tcp", "meta l4proto sctp"]
        if 4 in self.versions:
            drawn += ["ip protocol tcp", "icmp type echo-request", *("icmp code 0",) * 3, "ip frag-off & 0x1fff == 0",
                      "icmp type { echo-request, echo-reply }", "ip protocol udp"]  # fmt: skip
        if 6 in self.versions:
            drawn += ["icmpv6 type echo-request", "ip6 nexthdr tcp", "ip6 nexthdr != udp", *("icmpv6 code 0",) * 4]
        if self.family == "inet":
            drawn += ["meta nfproto ipv4", "meta nfproto ipv6", "meta nfproto != ipv4"]
        return self.rng.choice(drawn)

    def untold(self, hook: str) -> str:
        """What nobody says of a packet: both ways are followed."""
        drawn = ["meta length < 100", "meta pkttype host", "meta pkttype != host", "meta cgroup != 1"]
        if 4 in self.versions:
            drawn += ["ip ttl > 1", "ip ttl < 65", "ip dscp cs1", "ip dscp != cs0"]
        if 6 in self.versions:
            drawn += ["ip6 hoplimit > 1"] * 3
        return self.rng.choice(drawn)

    def fib(self, hook: str) -> str:
        drawn = ["fib daddr type local", "fib daddr type != local", "fib saddr type local", "fib saddr type unicast",
                 "fib daddr type { local, broadcast }"]  # fmt: skip
        if hook in ("prerouting", "input"):
            drawn += [
                "fib daddr . iif type local",
                "fib daddr . iif type != local",
                "fib saddr . iif type unicast",
                "fib saddr . iif type != local",
            ]
        if hook == "prerouting":
            drawn += [
                *("fib saddr . iif oif exists",) * 3,
                "fib saddr . iif oif missing",
                *("fib saddr . mark . iif oif missing",) * 5,
            ]
        return self.rng.choice(drawn)

    def socket(self, hook: str) -> str:
        if hook not in ("prerouting", "input"):
            return self.port(hook)
        return self.rng.choice(("socket transparent 1", "socket transparent 0", "socket mark 0x0", "socket wildcard 1",
                                "socket wildcard 0"))  # fmt: skip


def _contradicts(rule: str) -> bool:
    """It reads headers of several protocols of one layer."""
    return any(len({name for name, word in words if word.search(rule)}) > 1 for words in _LAYERS)


def _suits(before: str, version: int) -> bool:
    """What a rule has said of the family must not contradict what it does."""
    return not any(word in before for word in (("ip6 ", "ipv6", "icmpv6"), ("ip ", "ipv4", "icmp "))[version == 6])


def _apart(rng: Random, version: int) -> list[str]:
    """Networks without overlaps."""
    return rng.sample({4: ("10.1.0.0/16", "10.96.0.0/12", "10.0.0.0/24", "127.0.0.0/8", "172.16.0.0/12"),
                       6: ("fd01::/32", "fd96::/16", "fd00::/64", "::1/128", "fd17::/16")}[version], 2)  # fmt: skip


_LAYERS: Final = (
    ((4, re.compile(r"\bip (saddr|daddr|protocol|frag-off|dscp|ttl)|\bicmp |nfproto ipv4|icmp type|dnat ip |snat ip ")),
     (6, re.compile(r"\bip6 |icmpv6|nfproto ipv6|dnat ip6|snat ip6"))),
    ((1, re.compile(r"\btcp [dsf]|l4proto tcp|protocol tcp|nexthdr tcp")),
     (2, re.compile(r"\budp [ds]|l4proto udp|protocol udp")), (3, re.compile(r"\bsctp [ds]|l4proto sctp")),
     (4, re.compile(r"\bicmp (type|code)")), (5, re.compile(r"icmpv6 (type|code)")), (6, re.compile(r"l4proto \{")),
     (6, re.compile(r"l4proto !=")), (7, re.compile(r"l4proto vmap"))),
)  # fmt: skip
_MATCHES: Final[tuple[Callable[[NftTable, str], str], ...]] = (
    *(NftTable.address,) * 4, *(NftTable.port,) * 6, *(NftTable.owner,) * 2, *(NftTable.mark,) * 2, NftTable.flags,
    *(NftTable.interface,) * 2, *(NftTable.connection,) * 3, *(NftTable.protocol,) * 4, *(NftTable.fib,) * 2,
    *(NftTable.socket,) * 2, *(NftTable.untold,) * 2,
)  # fmt: skip
