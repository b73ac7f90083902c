"""Which changes of rules were this process's: by what the kernel calls its threads.

nftables tells of each change the thread's number as the first pid namespace has it (nf_tables_api.c:
nf_tables_fill_gen_info, task_pid_nr), which a process in a container, or on a node that is a container itself (kind),
finds in no /proc that it sees. Asked for the number of the last change, the kernel says the asker's along with it.
"""

from contextlib import suppress
from typing import Final

from agent.kernel.netlink import Netlink, attributes
from agent.kernel.nft_messages import GETGEN, NETLINK_NETFILTER, NFGENMSG, NFPROTO_INET, message

GEN_PROC_PID: Final = 2
"""linux/netfilter/nf_tables.h: NFTA_GEN_PROC_PID."""

_noted: set[int] = set()


def note_thread() -> None:
    """Called once on each thread that makes changes; such a thread lives as long as the process, so its number is
    nobody else's. A kernel without nf_tables has none to tell."""
    with suppress(OSError), Netlink(NETLINK_NETFILTER) as netlink:
        told = attributes(netlink.ask(message(GETGEN, 0, b"", NFPROTO_INET))[NFGENMSG.size :])
        _noted.add(int.from_bytes(told.get(GEN_PROC_PID, b""), "big"))


def is_ours(pid: int) -> bool:
    """`pid` as a message of nftables says it."""
    return pid in _noted
