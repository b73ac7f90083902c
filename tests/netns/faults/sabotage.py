"""What somebody may do to a pod's rules, by the tools that they would use. Run as root in the pod's namespace."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.lab.namespaces import Netns

TABLE: Final = "headgate"
_RULE: Final = re.compile(r"^\t\t(?!type |policy )(.+?) # handle (\d+)$")
_CHAIN: Final = re.compile(r"^\tchain (\S+) \{")
_ROUTE: Final = ("local", "default", "dev", "lo", "table", "100")
"""Not `flush`: that asks again until nothing is left, and so deletes what the agent healed meanwhile a second time."""


@dataclass(frozen=True, slots=True)
class Sabotage:
    """`do` breaks something in the namespace. `cuts`: the NAT hooks go, and steered connections can."""

    name: str
    do: Callable[[Netns], None]
    said: str
    """A part of what the agent says was changed."""
    cuts: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    chain: str
    text: str
    handle: int


def _nft(script: str) -> Callable[[Netns], None]:
    return lambda netns: _apply(netns, script)


def _ip(*command: str) -> Callable[[Netns], None]:
    return lambda netns: _done(netns, "ip", *command)


def _apply(netns: Netns, script: str) -> None:
    netns.run(["nft", "-f", "-"], stdin=script)


def _done(netns: Netns, *command: str) -> None:
    netns.run(list(command))


def _rules(netns: Netns) -> list[_Rule]:
    """Every rule of the table, in order."""
    found, chain = [], ""
    listing = netns.run(["nft", "--stateless", "--handle", "list", "table", "inet", TABLE]).stdout
    for line in listing.splitlines():
        if opened := _CHAIN.match(line):
            chain = opened[1]
        elif rule := _RULE.match(line):
            found.append(_Rule(chain, rule[1], int(rule[2])))
    assert found, "the table has another form than expected"
    return found


def _delete(netns: Netns, rules: list[_Rule]) -> None:
    _apply(netns, "".join(f"delete rule inet {TABLE} {rule.chain} handle {rule.handle}\n" for rule in rules))


def _half_of_the_rules(netns: Netns) -> None:
    _delete(netns, _rules(netns)[::2])


def _one_rule(netns: Netns) -> None:
    _delete(netns, [rule for rule in _rules(netns) if "headgate:out-capture" in rule.text][:1])


def _ipv6_half(netns: Netns) -> None:
    rules = [rule for rule in _rules(netns) if "ip6 " in rule.text or "nfproto ipv6" in rule.text]
    assert rules, "no rule is of IPv6 alone"
    _delete(netns, rules)


def _swap(netns: Netns) -> None:
    """The last two rules of the chain that captures outbound connections: what was to pass is captured first."""
    chain = next(rule.chain for rule in _rules(netns) if "headgate:out-capture" in rule.text)
    before, last = [rule for rule in _rules(netns) if rule.chain == chain][-2:]
    _apply(
        netns,
        f"delete rule inet {TABLE} {chain} handle {before.handle}\nadd rule inet {TABLE} {chain} {before.text}\n",
    )
    assert last.handle


def _chain_emptied(netns: Netns) -> None:
    chain = next(rule.chain for rule in _rules(netns) if "headgate:in-capture" in rule.text)
    _apply(netns, f"flush chain inet {TABLE} {chain}\n")


def _foreign_rule(netns: Netns) -> None:
    """Before ours: it lets everything out past the mesh."""
    chain = next(rule.chain for rule in _rules(netns) if "headgate:out-capture" in rule.text)
    _apply(netns, f"insert rule inet {TABLE} {chain} tcp dport 1-65535 accept\n")


ALL: Final = (
    Sabotage("table-deleted", _nft(f"delete table inet {TABLE}\n"), "table inet headgate is gone"),
    Sabotage("table-flushed", _nft(f"flush table inet {TABLE}\n"), "missing"),
    Sabotage("rule-deleted", _one_rule, "out-capture"),
    Sabotage("half-of-the-rules-deleted", _half_of_the_rules, "missing"),
    Sabotage("chain-emptied", _chain_emptied, "is empty"),
    Sabotage("rules-swapped", _swap, "swapped"),
    Sabotage("ipv6-half-deleted", _ipv6_half, "linklocal6"),
    Sabotage("foreign-rule-inserted", _foreign_rule, "foreign rule"),
    Sabotage("ip-rule-gone-v4", _ip("-4", "rule", "delete", "preference", "32764"), "rule"),
    Sabotage("ip-rule-gone-v6", _ip("-6", "rule", "delete", "preference", "32764"), "rule"),
    Sabotage("ip-route-gone-v4", _ip("-4", "route", "delete", *_ROUTE), "route"),
    Sabotage("ip-route-gone-v6", _ip("-6", "route", "delete", *_ROUTE), "route"),
    Sabotage("ruleset-flushed", _nft("flush ruleset\n"), "gone", cuts=True),
)
