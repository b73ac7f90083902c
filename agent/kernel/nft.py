"""nftables through libnftables, inside the network namespace that the calling thread is in.

A context's netlink socket belongs to the namespace in which the context was made, and keeps that namespace alive; so
each call makes its own and lets it go before it returns (reference/feasibility.md 1b).
"""

import functools
import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import nftables

from agent.kernel.low_numbers import LowNumbers
from agent.kernel.netlink import Netlink, attribute, attribute_list, attributes
from agent.kernel.nft_messages import GETRULE, GETSETELEM, GETTABLE, NETLINK_NETFILTER, NFPROTO_INET, dump, message
from agent.kernel.refused import KernelRefused
from agent.kernel.scratch import in_scratch
from agent.plan import FlowKey
from agent.printable import printable

COMMENT_PREFIX: Final = "headgate:"
TABLE: Final = "headgate"

_MESSAGE_BYTES: Final = 20  # struct nlmsghdr and struct nfgenmsg
_RULE_CHAIN: Final = 2
_RULE_TABLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 4, 7  # linux/netfilter/nf_tables.h
_TABLE_NAME_ATTRIBUTE: Final = 1
_ELEM_LIST_TABLE, _ELEM_LIST_SET, _ELEM_LIST_ELEMENTS = 1, 2, 3
_ELEM_KEY, _ELEM_USERDATA, _DATA_VALUE = 1, 6, 1
_EXPR_NAME, _EXPR_DATA = 1, 2
_NAMED_COUNTER: Final = attribute(_EXPR_NAME, b"counter\0")
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_UDATA_COMMENT: Final = 0  # libnftnl/udata.h: NFTNL_UDATA_RULE_COMMENT, NFTNL_UDATA_SET_ELEM_COMMENT

_TABLE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_CHAIN_NAME: Final = re.compile(r"[A-Za-z_.][A-Za-z0-9_./-]{0,127}")  # nft's scanner.l: string
_FAMILY: Final = re.compile(r"inet|ip6?|arp|bridge|netdev")
_MISSING: Final = "No such file or directory"
_ERROR_CHARACTERS: Final = 2000
_EXPECTED_SCRIPTS: Final = 64

# nft_ctx_new and nft_ctx_free touch tables that the whole process shares (libnftables.c: nft_init, nft_exit, the
# interface cache); commands between them touch only their context, as long as no rule names an interface by index.
_contexts = threading.Lock()
_low = LowNumbers()


def keep_low_numbers() -> None:
    """For a process that may come to hold a thousand descriptors: at its start."""
    with _contexts:
        _low.keep()


def fork() -> int:
    """os.fork(), while no other thread makes or frees a context: the child can make its own."""
    with _contexts:
        return os.fork()


@dataclass(frozen=True, slots=True)
class RuleCounter:
    """What one rule has seen: `rule_id` from its comment `headgate:<rule-id>`, packets and bytes since it was made."""

    rule_id: str
    packets: int
    bytes: int


def apply(script: str) -> None:
    """Runs `script` as one transaction: all of it or nothing. Raises KernelRefused."""
    with closing(Session()) as session:
        status, _, error = session.run(script)
    if status != 0:
        raise KernelRefused("nft transaction", _where(script) or _first_line(error), remedy(error))


def complaint(script: str) -> str | None:
    """What libnftables or the kernel has against `script`; None: they would take it. Nothing is applied."""
    with closing(Session()) as session:
        error = session.check(script)
    return _first_line(error) if error else None


def list_table(name: str) -> str | None:
    """Table `inet NAME` as nft prints it, without handles, counter values and the elements of named sets: what of it
    two equal plans have in common. None when there is no such table. Raises KernelRefused."""
    with closing(Session()) as session:
        session.stateless()
        session.terse()
        return session.list(name)


def list_tables(tables: Iterable[tuple[str, str]]) -> str:
    """Tables (family, name) as nft prints them, counter values included, without the elements of named sets.

    One that has gone, or whose name nft(8) does not take, is left out. Not asked of iptables-nft's: what nft cannot
    print of them it complains about on standard error. Raises KernelRefused.
    """
    listed: list[str] = []
    with closing(Session()) as session:
        session.terse()
        for family, name in tables:
            if _FAMILY.fullmatch(family) and _TABLE_NAME.fullmatch(name):
                status, output, error = session.run(f"list table {family} {name}")
                if status == 0:
                    listed.append(output)
                elif _MISSING not in error:
                    raise KernelRefused("nft list table", printable(error, _ERROR_CHARACTERS), remedy(error))
    return "".join(listed)


def list_ruleset() -> str:
    """Everything that nftables holds in the namespace, counter values and the elements of sets included.
    Raises KernelRefused."""
    with closing(Session()) as session:
        status, output, error = session.run("list ruleset")
    if status != 0:
        raise KernelRefused("nft list ruleset", printable(error, _ERROR_CHARACTERS), remedy(error))
    return output


def list_chain(family: str, table: str, chain: str) -> str | None:
    """As nft prints it. None when it has gone, or when nft(8) does not take a name. Raises KernelRefused."""
    if not (_FAMILY.fullmatch(family) and _TABLE_NAME.fullmatch(table) and _CHAIN_NAME.fullmatch(chain)):
        return None
    with closing(Session()) as session:
        status, output, error = session.run(f"list chain {family} {table} {chain}")
    if status == 0:
        return output
    if _MISSING in error:
        return None
    raise KernelRefused(f"nft list chain {family} {table} {chain}", _first_line(error), remedy(error))


def list_json(kind: str, family: str, table: str, name: str) -> str | None:
    """One chain with its rules, one set or map with its elements, as libnftables-json(5), without counter values: the
    whole ruleset takes 52 µs a rule (6.18, nft 1.0.6), of which a packet meets a few. `kind`: chain, set or map.

    None when there is no such thing. Named in JSON, because nft's language does not take every name that the kernel
    does. What libnftables cannot say of iptables-nft's rules it complains about on standard error. Whole tables are not
    asked for: of one with flags it prints freed memory (1.0.6, json.c: table_print_json). Raises KernelRefused.
    """
    command = json.dumps({"nftables": [{"list": {kind: {"family": family, "table": table, "name": name}}}]})
    with closing(Session()) as session:
        session.speak_json()
        session.stateless()
        status, output, error = session.run(command)
    if status == 0:
        return output
    if _MISSING in error:
        return None
    raise KernelRefused(
        f"nft list {kind} {family} {printable(table)} {printable(name)}", _first_line(error), remedy(error)
    )


def list_counters(table: str = TABLE) -> tuple[RuleCounter, ...]:
    """The counters of `inet TABLE`, in the rules' own order; empty when there is no such table. Raises OSError.

    Read as the kernel's messages: each minute every pod is asked, and libnftables takes twice the time and more memory.
    """
    of_table = attribute(_RULE_TABLE, table.encode() + b"\0")
    with Netlink(NETLINK_NETFILTER) as netlink:
        rules = dump(netlink, GETRULE, of_table, NFPROTO_INET)
        return tuple(counter for _, data in rules if (counter := _counter(attributes(data))) is not None)


def read_counters(chain: str, rule_ids: Iterable[str], table: str = TABLE) -> tuple[RuleCounter, ...]:
    """The counters of some rules of one chain; of those that are there. Raises OSError.

    Each minute 250 pods are asked: only the rules in question are taken apart, a tenth of the time of `list_counters`.
    """
    comments = [f"{COMMENT_PREFIX}{rule_id}\0".encode() for rule_id in rule_ids]
    of_chain = attribute(_RULE_TABLE, table.encode() + b"\0") + attribute(_RULE_CHAIN, chain.encode() + b"\0")
    with Netlink(NETLINK_NETFILTER) as netlink:
        data = netlink.dump_whole(message(GETRULE, 0, of_chain, NFPROTO_INET))
    if not any(comment in data for comment in comments):
        return ()
    found = (_counter(attributes(rule)) for rule in _payloads(data) if any(comment in rule for comment in comments))
    return tuple(counter for counter in found if counter is not None)


def tables(family: int = NFPROTO_INET) -> frozenset[str]:
    """Names of the tables of a family; of all of them with AF_UNSPEC. Raises OSError."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        found = [attributes(data).get(_TABLE_NAME_ATTRIBUTE, b"") for _, data in dump(netlink, GETTABLE, b"", family)]
    return frozenset(name.rstrip(b"\0").decode("utf-8", "replace") for name in found)


def connections(name: str, table: str = TABLE) -> dict[FlowKey, str] | None:
    """The connections in a set of `inet TABLE` whose key is address, port, address, port; with each element's comment.
    None when there is no such set. Raises OSError."""
    of_set = attribute(_ELEM_LIST_TABLE, table.encode() + b"\0") + attribute(_ELEM_LIST_SET, name.encode() + b"\0")
    found: dict[FlowKey, str] = {}
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            for _, data in dump(netlink, GETSETELEM, of_set, NFPROTO_INET):
                for _, element in attribute_list(attributes(data).get(_ELEM_LIST_ELEMENTS, b"")):
                    parts = attributes(element)
                    key = _connection(attributes(parts.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b""))
                    if key is not None:
                        found[key] = _comment(parts.get(_ELEM_USERDATA, b""))
    except FileNotFoundError:
        return None
    return found


def expected_listing(script: str, table: str = TABLE) -> str:
    """What `list_table(table)` says in a namespace that holds `script` and nothing else.

    nft prints some expressions otherwise than they were written, so a plan is compared as the same tool prints it.
    The script is loaded in a namespace of a thread's own that ends with the thread. Remembered by script: pods of
    equal plans share one loading. Raises KernelRefused.
    """
    return _expected(script, table)


@functools.lru_cache(maxsize=_EXPECTED_SCRIPTS)
def _expected(script: str, table: str) -> str:
    listing = in_scratch(_load_and_list, script, table)
    if listing is None:
        raise KernelRefused(f"nft list table inet {table}", "the script makes no such table", "a fault of the plan")
    return listing


def _load_and_list(script: str, table: str) -> str | None:
    apply(script)
    return list_table(table)


class Session:
    """One libnftables context. Nobody else may hold the binding's object: its last reference frees the context.
    Raises OSError (EMFILE)."""

    __slots__ = ("_nft",)

    def __init__(self) -> None:
        self._nft: Any = None
        with _contexts:
            try:
                with _low.one_for_use():
                    self._nft = nftables.Nftables()
            except OSError:
                self._nft = None  # while nobody else makes or frees one
                raise

    def close(self) -> None:
        with _contexts:
            self._nft = None
            _low.refill()

    def run(self, command: str) -> tuple[int, str, str]:
        """Status (0: done), output, error."""
        status, output, error = self._nft.cmd(command.encode())  # given text, it raises at a comment in no UTF-8
        return int(status), _text(output), _text(error)

    def check(self, command: str) -> str:
        """As `check_file`, of a buffer; empty when there is nothing against it."""
        self._nft.set_dry_run(True)
        status, _, error = self._nft.cmd(command.encode())
        return _text(error) or "refused" if status != 0 else ""

    def check_file(self, path: str) -> str:
        """What libnftables has against the script in `path`; nothing is applied."""
        self._nft.set_dry_run(True)
        _, _, error = self._nft.cmd_from_file(path.encode())
        return _text(error)

    def stateless(self) -> None:
        self._nft.set_stateless_output(True)

    def speak_json(self) -> None:
        """Commands and answers; numbers, where names would be looked up in files of the caller's (/etc/protocols)."""
        self._nft.set_json_output(True)
        self._nft.set_numeric_proto_output(True)
        self._nft.set_numeric_symbol_output(True)

    def terse(self) -> None:
        """Leaves out the elements of named sets."""
        self._nft.set_terse_output(True)

    def list(self, name: str) -> str | None:
        """None: no table `inet NAME`. Raises KernelRefused."""
        command = f"list table inet {name}"
        if not _TABLE_NAME.fullmatch(name):
            raise KernelRefused("nft list table", f"{printable(name)!r} is no table name", "letters, digits, - and _")
        status, output, error = self.run(command)
        if status == 0:
            return output
        if _MISSING in error:
            return None
        raise KernelRefused(f"nft {command}", printable(error, _ERROR_CHARACTERS), remedy(error))


def _text(printed: bytes) -> str:
    """Comments and names are as a pod wrote them."""
    return printed.decode("utf-8", "replace")


def _payloads(data: bytes) -> Iterator[bytes]:
    """Of each message its attributes, behind nlmsghdr and nfgenmsg."""
    offset = 0
    while offset + _MESSAGE_BYTES <= len(data):
        length = int.from_bytes(data[offset : offset + 4], sys.byteorder)
        yield data[offset + _MESSAGE_BYTES : offset + length]
        offset += (length + 3) & ~3


def _counter(rule: dict[int, bytes]) -> RuleCounter | None:
    """None for a rule without our comment, or without a counter."""
    comment = _comment(rule.get(_RULE_USERDATA, b""))
    if not comment.startswith(COMMENT_PREFIX):
        return None
    for _, expression in attribute_list(rule.get(_RULE_EXPRESSIONS, b"")):
        if _NAMED_COUNTER not in expression:  # the usual one, and cheap to tell
            continue
        parts = attributes(expression)
        if parts.get(_EXPR_NAME) == b"counter\0":
            counted = attributes(parts[_EXPR_DATA])
            packets, octets = (int.from_bytes(counted[kind], "big") for kind in (_COUNTER_PACKETS, _COUNTER_BYTES))
            return RuleCounter(printable(comment.removeprefix(COMMENT_PREFIX)), packets, octets)
    return None


def _connection(key: bytes) -> FlowKey | None:
    """Concatenated, each part filled up to four bytes (nft(8): concatenations). None for a key of another make."""
    address_size = {16: 4, 40: 16}.get(len(key))
    if address_size is None:
        return None
    half = address_size + 4
    ends = (key[:half], key[half:])
    (local, local_port), (remote, remote_port) = (
        (ip_address(end[:address_size]), int.from_bytes(end[address_size : address_size + 2], "big")) for end in ends
    )
    return local, local_port, remote, remote_port


def _comment(userdata: bytes) -> str:
    """What nft keeps with a rule or an element: type and length of one byte each, value (libnftnl udata.h)."""
    while len(userdata) > 2:
        kind, length = userdata[0], userdata[1]
        if kind == _UDATA_COMMENT:
            return userdata[2 : 2 + length].rstrip(b"\0").decode("utf-8", "replace")
        userdata = userdata[2 + length :]
    return ""


_ERROR_PLACE: Final = re.compile(r"^[^:\n]*:(\d+):[\d-]+: (Error: [^\n]*)", re.MULTILINE)


def _where(script: str) -> str | None:
    """libnftables' complaint about `script` and the line it means, by a dry run that the kernel takes back.

    Of a buffer it always quotes the first line (1.0.6); of a file it knows the line, so the script becomes one. None
    when it has no complaint any more.
    """
    fd = os.memfd_create("headgate-nft", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb") as file, closing(Session()) as session:
        file.write(script.encode())
        file.flush()
        found = _ERROR_PLACE.search(session.check_file(f"/proc/self/fd/{fd}"))
    if found is None:
        return None
    lines = script.splitlines()
    number = int(found.group(1))
    line = lines[number - 1].strip() if 0 < number <= len(lines) else "?"
    return f"{_first_line(found.group(2))}, line {number}: {printable(line, _ERROR_CHARACTERS)}"


def _first_line(error: str) -> str:
    return printable(error.strip().partition("\n")[0], _ERROR_CHARACTERS)


def remedy(error: str) -> str:
    if "Operation not permitted" in error:
        return "the agent needs CAP_NET_ADMIN in the pod's user namespace"
    if "Operation not supported" in error or "Protocol not supported" in error:
        return "this kernel lacks an nftables feature: check CONFIG_NF_TABLES_INET, NFT_NAT, NFT_REDIR, NFT_CT"
    if _MISSING in error:
        return "what the line names does not exist, or the kernel lacks the expression: compare `nft list ruleset`"
    if "File exists" in error:
        return "somebody made the same object meanwhile: read the table back and retry"
    return "compare `nft list ruleset` inside the pod's namespace; the transaction changed nothing"
