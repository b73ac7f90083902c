"""What a lab must leave as it was: the machine's namespaces, rules, routing rules, mounts, and no process more."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.lab.namespaces import NETNS_DIRECTORY
from agent.lab.state import STATE_DIRECTORY

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Machine:
    """One reading. Each entry is a line as the tool prints it: netns, nftables, ip rule, mount."""

    namespaces: frozenset[str]
    ruleset: tuple[str, ...]
    routing_rules: frozenset[str]
    mounts: frozenset[str]


def read() -> Machine:
    """Reads the machine's own namespace, and changes nothing."""
    netns = {path.name for path in NETNS_DIRECTORY.iterdir()} if NETNS_DIRECTORY.is_dir() else set()
    return Machine(
        namespaces=frozenset(netns),
        ruleset=tuple(_lines("nft", "--stateless", "list", "ruleset")),  # counters move by themselves
        routing_rules=frozenset(
            f"ip -{family} rule: {line}" for family in "46" for line in _lines("ip", f"-{family}", "rule")
        ),
        mounts=frozenset(_mounts()),
    )


def leftovers(before: Machine, after: Machine, lab: str) -> list[str]:
    """What `after` has and `before` had not, in words; what other labs made meanwhile is theirs."""
    found = [f"network namespace {name}" for name in _added(before.namespaces, after.namespaces) if _is_ours(name, lab)]
    if before.ruleset != after.ruleset:
        added = [line.strip() for line in after.ruleset if line not in before.ruleset]
        found.append(f"nft ruleset of the machine changed: {'; '.join(added) or 'rules are gone'}")
    found += [f"{line} (new)" for line in _added(before.routing_rules, after.routing_rules)]
    found += [f"{line} (gone)" for line in _added(after.routing_rules, before.routing_rules)]
    for mount in _added(before.mounts, after.mounts):
        path = Path(mount.split()[0])
        if path.parent != NETNS_DIRECTORY or _is_ours(path.name, lab):
            found.append(f"mount {mount}")
    if (STATE_DIRECTORY / lab).exists():
        found.append(f"directory {STATE_DIRECTORY / lab}")
    return found


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes this process's child (prctl(2), PR_SET_CHILD_SUBREAPER):
    then `descendants` knows of each process that was started and still runs."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[str]:
    """The living descendants of this process, as "process PID COMMAND". Ended ones are reaped on the way."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            with suppress(OSError):
                text = (directory / "stat").read_text(encoding="utf-8", errors="replace")
                command, _, rest = text.partition("(")[2].rpartition(")")
                parents[int(directory.name)] = int(rest.split()[1])
                names[int(directory.name)] = command
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return [f"process {pid} {names[pid]!a}" for pid in sorted(family - {os.getpid()})]


def _is_ours(name: str, lab: str) -> bool:
    return name.startswith(f"hg-{lab}-")


def _added(before: frozenset[str], after: frozenset[str]) -> list[str]:
    return sorted(after - before)


def _lines(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.splitlines()


def _mounts() -> list[str]:
    """ "POINT TYPE" of each; proc(5), /proc/PID/mountinfo: field 5, and the first after the lone '-'."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        found.append(f"{fields[4]} {fields[fields.index('-') + 1]}")
    return found
