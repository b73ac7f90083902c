"""How full conntrack is, of the namespace that the calling thread is in."""

from pathlib import Path
from typing import Final

from agent.doctor.facts import Tracking
from agent.kernel import conntrack

_STATISTICS: Final = Path("/proc/thread-self/net/stat/nf_conntrack")
"""A line a CPU, hexadecimal (net/netfilter/nf_conntrack_standalone.c: ct_cpu_seq_show)."""


def tracking() -> Tracking:
    """Raises OSError: no CAP_NET_ADMIN, or no ctnetlink in this kernel."""
    table = conntrack.table()
    try:
        head, *lines = _STATISTICS.read_text("ascii").splitlines()
    except OSError:  # CONFIG_NF_CONNTRACK_PROCFS is off: the kernel's own message tells what it tells
        return Tracking(table.entries, table.limit, table.dropped or 0, 0)
    names = head.split()
    dropped, evicted = (sum(_of(names, line, name) for line in lines) for name in ("drop", "early_drop"))
    return Tracking(table.entries, table.limit, dropped, evicted)


def _of(names: list[str], line: str, name: str) -> int:
    return int(line.split()[names.index(name)], 16)
