"""Tables, chains and rules as the kernel's own messages, of the namespace that the calling thread is in.

Whose a rule is, is read here and not from nft's text: the kernel keeps name and comment apart from what surrounds them.
Numbers are of linux/netfilter/nf_tables.h.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from agent.kernel.netlink import Netlink, attribute_list, attributes
from agent.kernel.nft_messages import GETCHAIN, GETRULE, GETTABLE, NETLINK_NETFILTER, dump

_TABLE, _NAME, _TABLE_NAME = 1, 3, 1  # NFTA_{CHAIN,RULE}_TABLE, NFTA_CHAIN_NAME, NFTA_TABLE_NAME
_CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 3, 4, 7
_EXPR_NAME, _EXPR_DATA = 1, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_UDATA_COMMENT: Final = 0  # libnftnl/udata.h: NFTNL_UDATA_RULE_COMMENT

_FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}  # linux/netfilter.h: NFPROTO_*
_HOOKS: Final = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting", 5: "ingress"}
_OF_NETDEV: Final = {0: "ingress", 1: "egress"}
_SIGNED: Final = struct.Struct(">i")
_POLICIES: Final = {0: "drop", 1: "accept"}

TableKey = tuple[str, str]
"""Family and name."""


@dataclass(frozen=True, slots=True)
class RuleObject:
    comment: str
    packets: int | None
    bytes: int | None
    handle: int = 0


@dataclass(slots=True)
class ChainObject:
    hook: str
    policy: str
    rules: list[RuleObject] = field(default_factory=list)


Tables = dict[TableKey, dict[str, ChainObject]]


def read() -> Tables:
    """All tables of all families, the chains of each and their rules, in the kernel's order. Raises OSError."""
    tables: Tables = {}
    with Netlink(NETLINK_NETFILTER) as netlink:
        for number, data in dump(netlink, GETTABLE):
            tables[family_name(number), _name(attributes(data).get(_TABLE_NAME, b""))] = {}
        for number, data in dump(netlink, GETCHAIN):
            found = attributes(data)
            chains = tables.setdefault((family_name(number), _name(found.get(_TABLE, b""))), {})
            chains[_name(found.get(_NAME, b""))] = _chain(number, found)
        for number, data in dump(netlink, GETRULE):
            found = attributes(data)
            chains = tables.setdefault((family_name(number), _name(found.get(_TABLE, b""))), {})
            chain = chains.setdefault(_name(found.get(_RULE_CHAIN, b"")), ChainObject("", ""))
            chain.rules.append(_rule(found))
    return tables


def family_name(number: int) -> str:
    return _FAMILIES.get(number, str(number))


def _chain(family: int, found: dict[int, bytes]) -> ChainObject:
    if _CHAIN_HOOK not in found:
        return ChainObject("", "")
    hook = attributes(found[_CHAIN_HOOK])
    number, priority = (_SIGNED.unpack(hook.get(kind, bytes(4)))[0] for kind in (_HOOK_NUMBER, _HOOK_PRIORITY))
    names = _OF_NETDEV if family_name(family) == "netdev" else _HOOKS
    kind = _text(found.get(_CHAIN_TYPE, b""))
    policy = int.from_bytes(found.get(_CHAIN_POLICY, b""), "big")
    return ChainObject(f"{kind} {names.get(number, number)}, priority {priority}", _POLICIES.get(policy, str(policy)))


def _rule(found: dict[int, bytes]) -> RuleObject:
    comment = _comment(found.get(_RULE_USERDATA, b""))
    handle = int.from_bytes(found.get(_RULE_HANDLE, b""), "big")
    for _, expression in attribute_list(found.get(_RULE_EXPRESSIONS, b"")):
        parts = attributes(expression)
        if parts.get(_EXPR_NAME) == b"counter\0":
            counted = attributes(parts.get(_EXPR_DATA, b""))
            packets, octets = (
                int.from_bytes(counted.get(kind, b""), "big") for kind in (_COUNTER_PACKETS, _COUNTER_BYTES)
            )
            return RuleObject(comment, packets, octets, handle)
    return RuleObject(comment, None, None, handle)


def _comment(userdata: bytes) -> str:
    """Type and length of one byte each, value (libnftnl udata.h)."""
    while len(userdata) > 2:
        kind, length = userdata[0], userdata[1]
        if kind == _UDATA_COMMENT:
            return _text(userdata[2 : 2 + length])
        userdata = userdata[2 + length :]
    return ""


def _name(raw: bytes) -> str:
    """Two names in no UTF-8 stay two: of what is told under one name, one would be hidden."""
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
