"""What changes from run to run, made the same: a page that is recorded twice is the same file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent.lab.node import Lab

_PORT: Final = re.compile(r"(?<=[:.])(3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|60\d{3})\b(?!\.)")
"""net.ipv4.ip_local_port_range: 32768 to 60999 (ip-sysctl.rst); what a story names itself lies below."""
_PID: Final = re.compile(
    r"(?<=\bpid )\d+|(?<=\bprocess )\d+|(?<=[a-z]/)\d{2,7}(?= |$|:)|(?<=kill -CONT )\d+|(?<=/proc/)\d+", re.MULTILINE
)
_TIME: Final = re.compile(r"\b\d\d:\d\d:\d\d\.\d{6,9}")
_AGE: Final = re.compile(r"(?<![\w.-])(>?)\d+s(?!\w)")
_TOOK: Final = re.compile(r"\b\d+\.\d+ s\b")
_AFTER: Final = re.compile(r"\bafter \d{4}(?= milliseconds)|\bafter \d+(?= ms)")
_PROOF: Final = re.compile(r"(?<=\bout4: )10\.77\.0\.\d+|(?<=:15002 --from )10\.77\.0\.\d+")
"""Where a proof goes, or is thought to come from: any address of the link, each time another."""
_PACKETS: Final = re.compile(r"\b\d{2,}(?= packets captured)")
_FILTERED: Final = re.compile(r"\b\d+(?= packets received by filter)")
_WORKER: Final = re.compile(r"\bworker \d+\b")
_HEAD: Final = re.compile(r"[A-Z]+(?: +[A-Z0-9]+)+")
_CELL: Final = re.compile(r"\S+(?: \S+)*")
_FIRST_PORT: Final = 40001
_FIRST_PID: Final = 21001


@dataclass(slots=True)
class Normal:
    """Of one story: the same port, or process, is the same in all its commands."""

    _ports: dict[str, str] = field(default_factory=dict)
    _pids: dict[str, str] = field(default_factory=dict)
    _names: list[tuple[str, str]] = field(default_factory=list)
    _pods: tuple[str, ...] = ()
    _prefix: str = ""

    def names(self, lab: Lab) -> None:
        """The lab's own names, and what a node has in their place."""
        self._pods = tuple(pod.name for pod in lab.pods)
        self._prefix = lab.paths.prefix
        self._names = [
            (str(lab.pods_file), "/etc/headgate/pods.yaml"),
            (str(lab.config_directory), "/etc/headgate/objects"),
            (str(lab.run_directory), "/var/run/headgate"),
            (" --run-dir /var/run/headgate", ""),
            (str(lab.paths.directory), "/root"),
            (self._prefix, ""),
        ]

    def real(self, command: str) -> str:
        """The command with the lab's names in it."""
        one_of = "|".join(map(re.escape, sorted(self._pods, key=len, reverse=True)))
        command = re.sub(rf"(/run/netns/|ip netns exec )(?=(?:{one_of})\b)", rf"\g<1>{self._prefix}", command)
        for real, told in self._names[:2]:
            command = command.replace(told, real)
        return command

    def told(self, printed: str) -> str:
        """What it printed, with a node's names, and each port and process by the order in which it came up."""
        return aligned(printed, self._same)

    def _same(self, text: str) -> str:
        for real, told in self._names:
            text = text.replace(real, told)
        text = _PORT.sub(lambda found: _numbered(self._ports, found[0], _FIRST_PORT), text)
        text = _PID.sub(lambda found: _numbered(self._pids, found[0], _FIRST_PID), text)
        text = _TIME.sub(lambda found: "03:00:00." + "0" * (len(found[0]) - 9), text)
        text = _AGE.sub(r"\g<1>1s", text)
        text = _AFTER.sub(lambda found: "after 1000" if len(found[0]) > 9 else "after 1", text)
        text = _PROOF.sub("10.77.0.200", text)
        text = _PACKETS.sub("12", _FILTERED.sub("4", text))
        text = _WORKER.sub("worker 0", text)
        return _TOOK.sub("0.2 s", text)


def aligned(text: str, same: Callable[[str], str]) -> str:
    """Each line, and each cell, through `same`; columns of a table, whose head is in capitals, are made straight."""
    lines, done = text.split("\n"), list[str]()
    while lines:
        if not _is_head(lines[0]):
            done.append(same(lines.pop(0)).rstrip())
            continue
        starts = [found.start() for found in _CELL.finditer(re.sub(r"(?<=\S) (?=\S)", "_", lines[0]))]
        rows = list[list[str]]()
        while lines and _fits(lines[0], starts):
            line = lines.pop(0)
            ends = [*starts[1:], len(line)]
            rows.append([same(line[start:end].rstrip()) for start, end in zip(starts, ends, strict=True)])
        widths = [max(len(row[at]) for row in rows) for at in range(len(starts))]
        for row in rows:
            done.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(done)


def _is_head(line: str) -> bool:
    return _HEAD.fullmatch(line) is not None and "  " in line


def _fits(line: str, starts: list[int]) -> bool:
    """Whether it is a row of that table: blanks stand before each column that it reaches."""
    return bool(line) and all(not line[at - 2 : at].strip() for at in starts[1:])


def _numbered(known: dict[str, str], number: str, first: int) -> str:
    return known.setdefault(number, str(first + len(known)))
