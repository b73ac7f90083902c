"""IPVS of the namespace that the calling thread is in: kube-proxy's third mode, which makes no rules of its own."""

from pathlib import Path
from typing import Final

IPVS: Final = Path("/proc/thread-self/net/ip_vs")
_PROTOCOLS: Final = ("TCP", "UDP", "SCTP", "FWM")


def ipvs(services: Path = IPVS) -> int:
    """Virtual services of the calling thread's namespace (net/netfilter/ipvs/ip_vs_ctl.c: ip_vs_info_seq_show); 0 in a
    kernel without IPVS. Raises OSError."""
    try:
        lines = services.read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return 0
    return sum(line.startswith(_PROTOCOLS) for line in lines)
