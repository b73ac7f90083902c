"""What the kernel can do for redirection: tried in a namespace that ends with the trial, never looked up by version.

libnftables checks a script against the kernel without putting it in force (`nft --check`).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.doctor.facts import Features, Modules, Tried
from agent.doctor.gather import bpf
from agent.kernel import backends, nft
from agent.kernel.backends import Backend
from agent.kernel.netlink import Netlink
from agent.kernel.nft_messages import GETGEN, NETLINK_NETFILTER, NFPROTO_INET, message
from agent.kernel.scratch import in_scratch

_Wanted = tuple[str, str, str, str, str, str]
_FILTER: Final = "filter hook prerouting priority -150"
_NAT: Final = "nat hook output priority -100"
_ROUTE: Final = "route hook output priority -150"

_SET_MARK: Final = "meta mark set meta mark & 0xfffff000 | 0x111"

# name, base chain, rule, config, module, who needs it
_NEEDED: Final[tuple[_Wanted, ...]] = (
    ("nat", _NAT, "accept", "CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT", "nft_chain_nat", "every steered pod"),
    ("redirect", _NAT, "meta l4proto tcp redirect to :15001", "CONFIG_NFT_REDIR", "nft_redir", "every steered pod"),
    ("route chain", _ROUTE, "accept", "CONFIG_NF_TABLES_INET", "nf_tables", "the way back of answers"),
    ("ct state", _FILTER, "ct state new accept", "CONFIG_NFT_CT", "nft_ct", "every steered pod"),
    (
        "ct mark",
        _ROUTE,
        "ct mark set ct mark & 0xfffff000 | 0x111",
        "CONFIG_NF_CONNTRACK_MARK",
        "nft_ct",
        "the way back",
    ),
    ("meta mark", _ROUTE, _SET_MARK, "CONFIG_NF_TABLES", "nf_tables", "no loops"),
    (
        "conntrack zones",
        "filter hook prerouting priority -300",
        "ct original zone set 1",
        "CONFIG_NF_CONNTRACK_ZONES",
        "nft_ct",
        "connects that never hang",
    ),
    ("socket mark", _FILTER, "socket mark & 0xfff == 0x539 accept", "CONFIG_NFT_SOCKET", "nft_socket", "no loops"),
    ("tcp flags", _FILTER, "tcp flags & (fin | syn | rst | ack) == syn accept", "CONFIG_NF_TABLES", "nf_tables", "SYN"),
    (
        "sets of tuples",
        _FILTER,
        "ip saddr . tcp sport . ip daddr . tcp dport { 192.0.2.1 . 1 . 192.0.2.2 . 2 } accept",
        "CONFIG_NF_TABLES",
        "nf_tables",
        "connections older than the rules",
    ),
)
_OPTIONAL: Final[tuple[_Wanted, ...]] = (
    ("meta skuid", _ROUTE, "meta skuid 1337 accept", "CONFIG_NF_TABLES", "nf_tables", "users excluded; sidecars"),
    (
        "ranges of addresses",
        _FILTER,
        "ip daddr { 192.0.2.0/25, 198.51.100.0/24 } accept",
        "CONFIG_NF_TABLES",
        "nf_tables",
        "excluded networks",
    ),
    ("reject", "filter hook output priority 0", "reject", "CONFIG_NFT_REJECT_INET", "nft_reject_inet", "udp: deny"),
    ("TPROXY", _FILTER, "meta l4proto tcp tproxy to :15006", "CONFIG_NFT_TPROXY", "nft_tproxy", "Istio's TPROXY mode"),
    (
        "socket transparent",
        _FILTER,
        "socket transparent 1 accept",
        "CONFIG_NFT_SOCKET",
        "nft_socket",
        "Istio's TPROXY mode",
    ),
    ("nftrace", _FILTER, "meta nftrace set 1", "CONFIG_NF_TABLES", "nf_tables", "`headgate rules trace`"),
    ("fib", _FILTER, "fib daddr type local accept", "CONFIG_NFT_FIB_INET", "nft_fib_inet", "kube-proxy in nft mode"),
)
_MODULES: Final = Path("/lib/modules")
_MOUNTS: Final = Path("/proc/self/mounts")


def features() -> Features:
    """Raises OSError when no namespace can be made to try in (CAP_SYS_ADMIN), or nothing may be tried there
    (CAP_NET_ADMIN)."""
    tried, found = in_scratch(_try_all)
    return Features(tried, bpf.program_types(), found, modules(), cgroup2())


def _try_all() -> tuple[tuple[Tried, ...], tuple[tuple[str, str | None], ...]]:
    with Netlink(NETLINK_NETFILTER) as netlink:  # what may not be tried is not what the kernel cannot do
        netlink.ask(message(GETGEN, 0, b"", NFPROTO_INET))
    tried = (*_tried(True, _NEEDED), *_tried(False, _OPTIONAL))
    return tried, tuple((backend.value, backends.unusable_because(backend)) for backend in Backend)


def _tried(needed: bool, wanted: tuple[_Wanted, ...]) -> Iterator[Tried]:
    """All at once, and each on its own where that is refused: to take a trial back the kernel waits 14 ms."""
    scripts = [_script(number, kind, rule) for number, (_, kind, rule, *_) in enumerate(wanted)]
    all_there = nft.complaint("\n".join(scripts)) is None
    for script, (name, _, _, config, module, purpose) in zip(scripts, wanted, strict=True):
        yield Tried(name, needed, purpose, config, module, None if all_there else nft.complaint(script))


def _script(number: int, kind: str, rule: str) -> str:
    return f"table inet hg-doctor {{ chain x{number} {{ type {kind}; policy accept; {rule}\n}}\n}}"


def modules(directory: Path = _MODULES) -> Modules:
    """What could be loaded, by the names that modprobe(8) goes by."""
    try:
        text = (directory / os.uname().release / "modules.dep").read_text("utf-8", "replace")
    except OSError:
        return Modules(False)
    names = (Path(line.partition(":")[0]).name.partition(".ko")[0] for line in text.splitlines())
    return Modules(True, frozenset(name.replace("-", "_") for name in names))


def cgroup2(mounts: Path = _MOUNTS) -> str | None:
    """Where the unified tree is mounted (proc(5)); the first one."""
    for line in mounts.read_text("utf-8", "replace").splitlines():
        _, where, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return where.encode().decode("unicode_escape")
    return None
