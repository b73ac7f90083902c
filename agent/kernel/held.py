"""What a pod's namespace holds, beside what it is to hold. Called on a thread that is inside it.

The kernel's messages decide; only when they differ is libnftables asked for the listings that people read.
"""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kernel import iproute, nft, nft_marks, nft_snapshot
from agent.kernel.nft_snapshot import Holding, Pattern, Snapshot
from agent.kernel.scratch import in_scratch
from agent.plan import RedirectPlan
from agent.plan.drift import Form, describe, describe_return_path, limited
from agent.plan.render.nft import ANCHOR_TABLE, TABLE, drain_script, install_script

_TABLES: Final = (ANCHOR_TABLE, TABLE)
_NAT_PRIORITY: Final = -100
"""Of our nat chains (agent.plan.render.nft). At the same priority the chain that was registered first comes first."""
_LEGACY: Final = (
    ("iptables", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables", "/proc/thread-self/net/ip6_tables_names"),
)
_LEGACY_EVERY_S: Final = 10
_EXPECTATIONS: Final = 64
"""Remembered, some 30 KB each: pods of equal annotations share one."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a namespace holds in which the plan is in force: `listings` of both tables, in the order of their names in
    this module; `pattern`: what reading them as the kernel's messages gives; `things`: objects and rules there."""

    plan: RedirectPlan
    listings: tuple[str, ...]
    pattern: Pattern
    things: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """`changes`: what differs from the plan, in words; empty when it is in force. `foreign`: other people's chains that
    may take a connection before ours do, or write our marks: no drift, and worth knowing."""

    changes: tuple[str, ...]
    foreign: tuple[str, ...]


@functools.lru_cache(maxsize=_EXPECTATIONS)
def expectation(plan: RedirectPlan, form: Form) -> Expectation:
    """By loading the plan in a scratch namespace and reading it back as a pod's is read. Remembered.

    Raises KernelRefused when the kernel refuses the plan, OSError when no namespace can be made.
    """
    script = install_script(plan, (), replace=False) if form is Form.STEERING else drain_script(plan)
    listings, snapshot = in_scratch(_load_and_read, script)
    return Expectation(plan, listings, nft_snapshot.pattern_of(snapshot), _things(_apart(snapshot)))


def compare(expected: Expectation, *, unchanged: bool = False) -> Found:
    """Order and meaning count; handles, counters and the elements of the grandfathered sets do not.

    `unchanged`: there was no transaction since a comparison that found nothing; then a third less is read, because a
    rule's own set changes with its rule only (nf_tables_api.c: nf_tables_newsetelem answers EBUSY).
    Raises KernelRefused or OSError when the namespace cannot be read; try again soon.
    """
    snapshot = nft_snapshot.read(_TABLES, elements=not unchanged)
    changes: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    if not expected.pattern.matches(snapshot):
        holding = _apart(snapshot)
        foreign = (*holding.foreign, *nft_marks.others_over_ours(_TABLES))
        if not expected.pattern.matches(nft_snapshot.only_of(snapshot, _TABLES)):
            changes = _changes(expected, holding)
    path = expected.plan.return_path
    changes += describe_return_path(path, iproute.missing_return_path(path))
    return Found(limited(changes), (*foreign, *_legacy()))


def _changes(expected: Expectation, holding: Holding) -> tuple[str, ...]:
    changes: list[str] = []
    for table, listing in zip(_TABLES, expected.listings, strict=True):
        changes += describe(listing, nft.list_table(table), f"inet {table}")
    if not changes and _things(holding) != expected.things:
        # The listings are equal to the letter, and there are fewer things: one has a line break in its comment or name.
        return ("the tables only look as planned: a comment or a name poses as what is missing",)
    return tuple(changes)


def _apart(snapshot: Snapshot) -> Holding:
    return nft_snapshot.take_apart(snapshot, _TABLES, _NAT_PRIORITY)


def _things(holding: Holding) -> tuple[int, int]:
    return len(holding.objects), len(holding.rules)


def _load_and_read(script: str) -> tuple[tuple[str, ...], Snapshot]:
    nft.apply(script)
    return tuple(nft.list_table(table) or "" for table in _TABLES), nft_snapshot.read(_TABLES)


def _legacy() -> tuple[str, ...]:
    """Tables of the old iptables, which nftables does not show."""
    return tuple(
        f"legacy {tool} nat table"
        for tool, path in _legacy_files(int(time.monotonic()) // _LEGACY_EVERY_S)
        if b"nat" in _content(path).split()
    )


@functools.lru_cache(maxsize=1)
def _legacy_files(_: int) -> tuple[tuple[str, str], ...]:
    """Those that there are: a module, once loaded, makes them in every namespace. Looking for a file that is not there
    takes as long as a dump."""
    return tuple((tool, path) for tool, path in _LEGACY if Path(path).exists())


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
