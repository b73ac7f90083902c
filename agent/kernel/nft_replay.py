"""A script compiled once and loaded many times: the rules of a fresh pod in one system call.

libnftables spends two thirds of a transaction on text (parsing, evaluating, fetching what is there), and the scripts
of fresh pods are equal to the byte. So the first is loaded by libnftables in a scratch namespace, read back as the
kernel's own messages (NFT_MSG_GET*), and turned into the messages that make the same objects (NFT_MSG_NEW*); what is
sent to every pod is these bytes. libnftables stays the reference: the bytes are used only if a second scratch
namespace that was given them lists the same ruleset to the letter, and what they cannot do falls back on it.

Numbers are of linux/netfilter/nf_tables.h.
"""

import errno
import functools
import logging
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.kernel import nft
from agent.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    encode,
)
from agent.kernel.nft_messages import (
    GETCHAIN,
    GETRULE,
    GETSET,
    GETSETELEM,
    GETTABLE,
    NETLINK_NETFILTER,
    NEWCHAIN,
    NEWRULE,
    NEWSET,
    NEWSETELEM,
    NEWTABLE,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    dump,
    message,
)
from agent.kernel.refused import KernelRefused
from agent.kernel.scratch import in_scratch
from agent.printable import printable

_log: Final = logging.getLogger("headgate.nft")

_BATCH_BEGIN, _BATCH_END = 16, 17  # linux/netfilter/nfnetlink.h
_U32: Final = struct.Struct(">I")

_TABLE_NAME: Final = 1
_SET_TABLE, _SET_NAME, _SET_ID = 1, 2, 10
_ELEM_LIST_TABLE, _ELEM_LIST_SET, _ELEM_LIST_ELEMENTS = 1, 2, 3

# What an object is made from. All else that the kernel tells (handles, positions, use counts) it gives out itself; what
# a newer kernel tells beyond that, libnftables has not asked for.
_TABLE_PARTS: Final = (_TABLE_NAME, 2, 6)  # NAME, FLAGS, USERDATA
_CHAIN_PARTS: Final = (1, 3, 4, 5, 7, 12)  # TABLE, NAME, HOOK, POLICY, TYPE, USERDATA
_SET_PARTS: Final = (_SET_TABLE, _SET_NAME, 3, 4, 5, 6, 7, 8, 9, 13)
"""TABLE, NAME, FLAGS, KEY_TYPE, KEY_LEN, DATA_TYPE, DATA_LEN, POLICY, DESC, USERDATA"""
_RULE_PARTS: Final = (1, 2, 4, 7)  # TABLE, CHAIN, EXPRESSIONS, USERDATA

_SCRIPTS: Final = 16
"""Compiled scripts that are remembered, 25 KB each: pods of equal annotations share one."""
_compiling = threading.Lock()


@dataclass(frozen=True, slots=True)
class Transaction:
    """A whole nfnetlink batch. `tables`: sequence of the message -> table that it creates; `last`: the sequence of the
    message whose acknowledgement says that all is in force."""

    batch: bytes
    tables: tuple[tuple[int, str], ...]
    last: int


def apply_fresh(script: str) -> None:
    """`nft.apply(script)` for a namespace that has none of the tables which `script` creates: quicker.

    One transaction: all of it or nothing. Raises KernelRefused; when a table is there already, without a change to it.
    """
    transaction = _transaction(script)
    if transaction is None:
        nft.apply(script)
        return
    try:
        refused = _send(transaction)
    except OSError:
        refused = {0: errno.EMSGSIZE}
    taken = next((name for sequence, name in transaction.tables if refused.get(sequence) == errno.EEXIST), None)
    if taken is not None:
        raise KernelRefused(
            "nft transaction", f"table {taken} is there already", "read the table back, replace it or leave it"
        )
    if refused:
        nft.apply(script)  # nothing was changed, and libnftables knows which line the kernel means


def _send(transaction: Transaction) -> dict[int, int]:
    """What was refused: sequence -> errno; empty when all is in force. What the commit as a whole refuses stands under
    the first message (nfnetlink.c: nfnetlink_rcv_batch)."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        results = netlink.transact(transaction.batch)
    refused = {sequence: number for sequence, number in results.items() if number}
    if not refused and transaction.last not in results:
        refused[transaction.last] = errno.EIO
    return refused


def _transaction(script: str) -> Transaction | None:
    """None when the script must go through libnftables. Compiled by one thread, while the others wait for it."""
    with _compiling:
        try:
            return _compiled(script)
        except (KernelRefused, OSError) as error:
            _log.warning("rules are not compiled, and take longer to install: %s", printable(str(error)))
            return None


@functools.lru_cache(maxsize=_SCRIPTS)
def _compiled(script: str) -> Transaction | None:
    """Raises KernelRefused when libnftables refuses the script, OSError when a scratch namespace cannot be had."""
    wanted, transaction = in_scratch(_load_and_read, script)
    refused, listing = in_scratch(_replay_and_list, transaction)
    if refused or listing != wanted:
        why = f"messages {refused} were refused" if refused else "the ruleset lists otherwise"
        _log.warning("rules are not compiled, and take longer to install: sent as messages, %s", why)
        return None
    return transaction


def _load_and_read(script: str) -> tuple[str, Transaction]:
    nft.apply(script)
    with Netlink(NETLINK_NETFILTER) as netlink:
        messages = tuple(_messages(netlink))
    return nft.list_ruleset(), _batch(messages)


def _replay_and_list(transaction: Transaction) -> tuple[dict[int, int], str]:
    return _send(transaction), nft.list_ruleset()


# ── From what is there to what makes it ────────────────────────────────────────────────────────────────────────────
def _messages(netlink: Netlink) -> Iterator[Message]:
    """In the order in which objects need each other: a rule names chains and sets. An anonymous set keeps the name
    that it had in the scratch namespace, and the rule names it by that (nf_tables_api.c: nf_tables_set_alloc_name takes
    a name without a pattern as it is)."""
    for family, data in dump(netlink, GETTABLE):
        # Never into a table that is there: its rules would all be there twice.
        yield message(NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, _parts(data, _TABLE_PARTS), family)
    for family, data in dump(netlink, GETCHAIN):
        yield message(NEWCHAIN, NLM_F_CREATE, _parts(data, _CHAIN_PARTS), family)
    for number, (family, data) in enumerate(dump(netlink, GETSET), start=1):
        identifier = attribute(_SET_ID, _U32.pack(number))  # demanded, and used by nobody here
        yield message(NEWSET, NLM_F_CREATE, _parts(data, _SET_PARTS) + identifier, family)
        yield from _elements(netlink, family, attributes(data))
    for family, data in dump(netlink, GETRULE):
        yield message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, _parts(data, _RULE_PARTS), family)


def _elements(netlink: Netlink, family: int, found: dict[int, bytes]) -> Iterator[Message]:
    of_set = attribute(_ELEM_LIST_TABLE, found[_SET_TABLE]) + attribute(_ELEM_LIST_SET, found[_SET_NAME])
    for _, data in dump(netlink, GETSETELEM, of_set, family):
        elements = attributes(data).get(_ELEM_LIST_ELEMENTS)
        if elements:
            yield message(NEWSETELEM, NLM_F_CREATE, of_set + attribute(_ELEM_LIST_ELEMENTS, elements), family)


def _parts(data: bytes, wanted: tuple[int, ...]) -> bytes:
    found = attributes(data)
    return b"".join(attribute(kind, found[kind]) for kind in wanted if kind in found)


def _batch(messages: tuple[Message, ...]) -> Transaction:
    """Framed as one transaction (nfnetlink.c: nfnetlink_rcv_batch). Only the last message asks for an answer, which is
    given after the commit; refusals are told unasked."""
    frame = NFGENMSG.pack(socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES.to_bytes(2, "big"))
    *others, end = messages
    framed = (
        Message(_BATCH_BEGIN, 0, frame),
        *others,
        Message(end.kind, end.flags | NLM_F_ACK, end.payload),
        Message(_BATCH_END, 0, frame),
    )
    batch = b"".join(encode(part, sequence) for sequence, part in enumerate(framed, start=1))
    tables = tuple(
        (sequence, attributes(part.payload[NFGENMSG.size :])[_TABLE_NAME].rstrip(b"\0").decode())
        for sequence, part in enumerate(framed, start=1)
        if part.kind == NFNL_SUBSYS_NFTABLES << 8 | NEWTABLE
    )
    return Transaction(batch, tables, len(framed) - 1)
