"""Rules loaded into the kernel, listed by nft as JSON, read: the recorded listing is what is listed, and all of it is
read; and rulesets of ours and of kube-proxy, in words."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.explain.nft_json import tables
from agent.explain.statements import NoEffect, Opaque, Perhaps, Set, Statement, Unread, VerdictMap
from agent.explain.tables import Table
from agent.explain.words import in_words
from tests.netns.kernel.scratch import Scratch
from tests.netns.rules.here import MODES, NFT, quiet_pod
from tests.unit.agent.explain.nft_listing import Listed, listing

WHERE = """\
table inet t {
	set ports { type inet_service; flags interval; elements = { 80, 443, 1000-2000 }; }
	set dyn { type ipv4_addr; flags dynamic,timeout; timeout 60s; }
	set pair { type ipv4_addr . inet_service; flags interval;
		elements = { 10.0.0.0/8 . 80-90, 1.2.3.4 . 443 comment "x" }; }
	set ifs { type ifname; flags interval; elements = { "eth*", "lo" }; }
	map m { type inet_service : inet_service; elements = { 80 : 8080, 443 : 8443 }; }
	map vm { type ipv4_addr . inet_service : verdict; elements = { 1.2.3.4 . 80 : jump x, 1.2.3.5 . 80 : drop }; }
	map im { type ipv4_addr : ipv4_addr . inet_service; elements = { 1.2.3.4 : 9.9.9.9 . 80 }; }
	chain x { }
	chain nat { type nat hook output priority -100; }
	chain pre { type filter hook prerouting priority 0; }
	chain inp { type filter hook input priority 0; }
}
table ip n {
	map im { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { 1.2.3.4 . 80 : 9.9.9.9 . 8080 }; }
	map ca { type ipv4_addr : verdict; elements = { 1.2.3.4 : accept, * : drop }; }
	map iv { type inet_service : interval ipv4_addr; elements = { 80 : 1.1.1.1-1.1.1.9, 90 : 2.2.2.0-2.2.2.9 }; }
	map nm { type ipv4_addr : interval ipv4_addr; flags interval; elements = { 10.0.0.0/24 : 192.168.0.0/24 }; }
	set counted { type ipv4_addr; counter; elements = { 1.2.3.4 }; }
	set states { type ct_state; elements = { new, established|related }; }
	set wild { type ifname . inet_service; flags interval; elements = { "eth*" . 80, "lo" . 80-90 }; }
	set dy { type ipv4_addr; size 100; flags dynamic; }
	map dm { type ipv4_addr : inet_service; size 100; flags dynamic; }
	set kinds { type icmp_type; elements = { echo-request }; }
	set protocols { type inet_proto; elements = { tcp, 99 }; }
	set users { typeof meta skuid; elements = { 5, 6 }; }
	set aging { type ipv4_addr; timeout 5s; elements = { 1.2.3.4 timeout 1h }; }
	map objects { type inet_service : counter; elements = { 80 : "named" }; }
	counter named { }
	quota q { over 5 bytes }
	limit l { rate 5/second }
	chain r { }
	chain pre { type nat hook prerouting priority -100; }
	chain post { type nat hook postrouting priority 100; }
	chain mangle { type filter hook prerouting priority -150; }
	chain inp { type filter hook input priority 0; }
	chain out { type route hook output priority -150; policy drop; }
}
table ip6 s {
	chain inp { type filter hook input priority 0; }
	chain pre { type nat hook prerouting priority -100; }
}
table netdev nd {
	chain in { type filter hook ingress device "lo" priority 0; }
}
table arp a {
	chain in { type filter hook input priority 0; }
}
"""
KUBE_PROXY = """\
table ip kube-proxy {
	set cluster-ips { type ipv4_addr; elements = { 10.96.0.10, 10.96.0.11 }; }
	set nodeport-ips { type ipv4_addr; elements = { 192.0.2.7 }; }
	chain mark-for-masquerade {
		meta mark set meta mark | 0x4000
	}
	chain reject-chain {
		reject
	}
	chain endpoint-A-default/web/tcp/http__10.244.1.5/8080 {
		ip saddr 10.244.1.5 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.244.1.5:8080
	}
	chain endpoint-B-default/web/tcp/http__10.244.2.6/8080 {
		ip saddr 10.244.2.6 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.244.2.6:8080
	}
	chain service-default/web/tcp/http {
		ip daddr 10.96.0.10 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
		numgen random mod 2 vmap { 0 : goto endpoint-A-default/web/tcp/http__10.244.1.5/8080,
			1 : goto endpoint-B-default/web/tcp/http__10.244.2.6/8080 }
	}
	map service-ips { type ipv4_addr . inet_proto . inet_service : verdict;
		elements = { 10.96.0.10 . tcp . 80 : goto service-default/web/tcp/http }; }
	map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict;
		elements = { 10.96.0.11 . tcp . 80 comment "default/empty" : goto reject-chain }; }
	map service-nodeports { type inet_proto . inet_service : verdict; }
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
		ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
	}
	chain filter-output {
		type filter hook output priority 0;
		ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}
	chain nat-output {
		type nat hook output priority -100;
		jump services
	}
	chain nat-postrouting {
		type nat hook postrouting priority 100;
		meta mark & 0x4000 == 0 return
		meta mark set meta mark ^ 0x4000
		masquerade fully-random
	}
}
"""
KUBE_PROXY_IN_WORDS = {
    "mark-for-masquerade": ["every packet -> mark becomes 0x4000/0x4000"],
    "reject-chain": ["every packet -> reject (icmp port-unreachable)"],
    "endpoint-A-default/web/tcp/http__10.244.1.5/8080": [
        "from 10.244.1.5 -> on in mark-for-masquerade",
        "TCP -> destination becomes 10.244.1.5:8080",
    ],
    "endpoint-B-default/web/tcp/http__10.244.2.6/8080": [
        "from 10.244.2.6 -> on in mark-for-masquerade",
        "TCP -> destination becomes 10.244.2.6:8080",
    ],
    "service-default/web/tcp/http": [
        "to 10.96.0.10, TCP to port 80, not from 10.244.0.0/16 -> on in mark-for-masquerade",
        "every packet -> by numgen random mod 2: chance decides: 0 on in"
        " endpoint-A-default/web/tcp/http__10.244.1.5/8080 for good, 1 on in"
        " endpoint-B-default/web/tcp/http__10.244.2.6/8080 for good",
    ],
    "services": [
        "every packet -> by destination address . protocol . destination port: one of 1 verdicts of @service-ips",
        "to one of 1 addresses of @nodeport-ips"
        " -> by protocol . destination port: one of 0 verdicts of @service-nodeports",
    ],
    "filter-output": [
        "of a connection that is new"
        " -> by destination address . protocol . destination port: one of 1 verdicts of @no-endpoint-services"
    ],
    "nat-output": ["every packet -> on in services"],
    "nat-postrouting": [
        "with mark 0x0/0x4000 -> back to the calling chain",
        "every packet -> mark becomes itself with the bits 0x4000 inverted",
        "every packet -> source becomes the address of the interface it leaves by",
    ],
}


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """Everything that is recorded, loaded at once and listed: in words, and in numbers."""
    with Scratch() as pod:
        rules = "".join(f"add rule {one.place} {one.rule}\n" for one in listing()[1].values())
        load(pod, WHERE + rules)
        return {options: pod.shell("nft", "-j", "-a", *options.split(), "list", "ruleset") for options in ("", "-n")}


def load(pod: Scratch, script: str) -> None:
    pod.shell("sh", "-c", f"nft -f - <<'END'\n{script}END\n")


def by_place(document: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in json.loads(document)["nftables"]:
        if "rule" in one:
            rule = one["rule"]
            found.setdefault(f"{rule['family']} {rule['table']} {rule['chain']}", []).append(rule["expr"])
    return found


def in_order(raw: Any) -> Any:
    """A set's elements come in the order of a hash that is another each time."""
    if isinstance(raw, list):
        return [in_order(one) for one in raw]
    if isinstance(raw, dict):
        ordered = {word: in_order(said) for word, said in raw.items()}
        if isinstance(raw.get("set"), list):
            ordered["set"] = sorted(ordered["set"], key=json.dumps)
        return ordered
    return raw


def recorded() -> dict[str, list[Listed]]:
    found: dict[str, list[Listed]] = {}
    for one in listing()[1].values():
        found.setdefault(one.place, []).append(one)
    return found


def test_nft_lists_each_rule_as_it_is_recorded(listed: dict[str, str]) -> None:
    """What the unit tests read is what this kernel and this nft say."""
    now = by_place(listed[""])
    differing = [
        (one.rule, expr)
        for place, rules in recorded().items()
        for one, expr in zip(rules, now[place], strict=True)
        if in_order(one.expr) != in_order(expr)
    ]
    assert differing == [] and len(listing()[1]) == 367


def test_numbers_in_place_of_words_are_the_same_rules(listed: dict[str, str]) -> None:
    """`nft -n`, and as agent.kernel.nft asks for JSON."""
    words, numbers = (chains(tables(listed[options])) for options in ("", "-n"))
    assert words.keys() == numbers.keys()
    texts = [one.rule for rules in recorded().values() for one in rules]
    assert sum(map(len, words.values())) == len(texts)
    differing = [
        (place, number, said, told)
        for place in words
        for number, (said, told) in enumerate(zip(words[place], numbers[place], strict=True))
        if said != told
    ]
    assert differing == []


def chains(found: tuple[Table, ...]) -> dict[str, list[tuple[Statement, ...]]]:
    return {
        f"{table.family} {table.name} {chain.name}": [
            tuple(without_text(one) for one in rule.statements) for rule in chain.rules
        ]
        for table in found
        for chain in table.chains.values()
        if chain.rules
    }


def without_text(statement: Statement) -> Statement:
    """What cannot be read is shown as it was listed, and that differs."""
    match statement:
        case Perhaps() | Unread():
            return replace(statement, what=Opaque("", ""))
        case NoEffect():
            return NoEffect("")
        case Set(value=Opaque()):
            return replace(statement, value=Opaque("", ""))
        case VerdictMap(key=Opaque()):
            return replace(statement, key=Opaque("", ""))
    return statement


@pytest.mark.parametrize("mode", MODES)
def test_our_rules_are_all_read_and_each_says_something(mode: str) -> None:
    with quiet_pod() as here:
        here.install(NFT, MODES[mode])
        found = tables(here.pod.shell("nft", "-j", "list", "ruleset"))
    rules = [rule for table in found for chain in table.chains.values() for rule in chain.rules]
    assert len(rules) > 20 and all(rule.comment.startswith("headgate:") for rule in rules)
    assert not [rule for rule in rules if any(isinstance(one, Perhaps | Unread) for one in rule.statements)]
    said = {rule.comment.removeprefix("headgate:"): in_words(rule) for rule in rules}
    assert OURS[mode].items() <= said.items()


OURS = {
    "owner": {
        "in-capture-skip-tunnel": "TCP to port 15008 -> accept",
        "in-capture": "TCP with flags syn of fin,syn,rst,ack -> redirect to port 15006",
        "out-capture-skip-passthrough4": "leaving by lo, from 127.0.0.6 -> accept",
        "out-capture-skip-proxy-users": "sent by user 1337 -> accept",
        "out-capture": "TCP with flags syn of fin,syn,rst,ack -> redirect to port 15001",
        "zone-out-users": "UDP, sent by user 1337 -> conntrack zone becomes 1",
        "out-inspect": "TCP, of a connection that is invalid or new -> on in out-forgotten",
        "out-forgotten": "every packet -> drop",
        "out-grandfathered4": (
            "whose source address . source port . destination address . destination port"
            " is one of @grandfathered4, which is empty -> accept"
        ),
    },
    "mark": {
        "zone-in": "with mark 0x539/0xfff -> conntrack zone becomes 1",
        "return-mark-keep": "leaving by lo, with mark 0x539/0xfff -> connection's mark becomes 0x111/0xfff",
        "return-mark-restore": (
            "without mark 0x539/0xfff, with connection mark 0x111/0xfff -> mark becomes 0x111/0xfff"
        ),
        "in-forgotten-skip-proxy": "for a socket with mark 0x539/0xfff -> accept",
        "out-capture-skip-proxy": "with mark 0x539/0xfff -> accept",
    },
}


def test_kube_proxys_rules_in_words() -> None:
    with Scratch() as pod:
        load(pod, KUBE_PROXY)
        (found,) = tables(pod.shell("nft", "-j", "list", "ruleset"))
    assert {
        chain.name: [in_words(rule) for rule in chain.rules] for chain in found.chains.values()
    } == KUBE_PROXY_IN_WORDS


def test_rules_of_iptables_nft_are_there_with_what_nft_can_tell_of_them() -> None:
    with Scratch() as pod:
        pod.shell("iptables-nft", "-A", "OUTPUT", "-p", "tcp", "-m", "owner", "--uid-owner", "5", "-j", "REJECT")
        pod.shell("iptables-nft", "-A", "OUTPUT", "-m", "comment", "--comment", "esc \x1b[2J", "-j", "DROP")
        (found,) = tables(pod.shell("nft", "-j", "list", "ruleset"))
    first, second = found.chains["OUTPUT"].rules
    assert "xt match owner" in in_words(first) and in_words(first).startswith("TCP, perhaps")
    assert in_words(second) == "every packet -> drop"
