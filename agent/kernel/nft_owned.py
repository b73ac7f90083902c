"""A table that is there for as long as whoever made it: `flags owner` (nft(8); Linux 5.12).

The kernel takes it away with the netlink socket that made it, however its process ends, and lets nobody else change it
(nf_tables_api.c: nft_rcv_nl_event, nft_table_lookup).
"""

from collections.abc import Iterator
from typing import Self

from agent.kernel.netlink import Netlink, attribute, attribute_list, attributes
from agent.kernel.nft import Session, remedy
from agent.kernel.nft_messages import GETRULE, NFPROTO_INET, dump
from agent.kernel.refused import KernelRefused
from agent.printable import printable

_RULE_TABLE, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 3, 4  # linux/netfilter/nf_tables.h
_EXPR_NAME, _EXPR_DATA = 1, 2
_COUNTER_PACKETS = 2
_ERROR_CHARACTERS = 2000


class OwnedTable:
    """Table `inet NAME` by `script`, which says `flags owner`, in the namespace of the thread that makes it. Raises
    KernelRefused; then nothing was made. Closing takes the table away."""

    __slots__ = ("_session", "name")

    def __init__(self, name: str, script: str) -> None:
        self.name = name
        self._session = Session()
        status, _, error = self._session.run(script)
        if status != 0:
            self._session.close()
            raise KernelRefused(f"nft table inet {name}", printable(error.strip(), _ERROR_CHARACTERS), remedy(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The kernel has the table no longer when this returns, but for a grace period of some ms."""
        self._session.close()


def counters(netlink: Netlink, table: str) -> dict[int, tuple[int, ...]]:
    """By the handle of each rule of `inet TABLE` the packets that its counters have seen, in the rule's own order; of
    the namespace of `netlink`. Raises OSError."""
    of_table = attribute(_RULE_TABLE, table.encode() + b"\0")
    found = [attributes(data) for _, data in dump(netlink, GETRULE, of_table, NFPROTO_INET)]
    return {int.from_bytes(rule.get(_RULE_HANDLE, b""), "big"): tuple(_packets(rule)) for rule in found}


def _packets(rule: dict[int, bytes]) -> Iterator[int]:
    for _, expression in attribute_list(rule.get(_RULE_EXPRESSIONS, b"")):
        parts = attributes(expression)
        if parts.get(_EXPR_NAME) == b"counter\0":
            yield int.from_bytes(attributes(parts.get(_EXPR_DATA, b"")).get(_COUNTER_PACKETS, b""), "big")
