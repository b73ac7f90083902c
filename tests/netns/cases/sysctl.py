"""A pod's kernel as strict as an administrator may make it about where packets come from."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.lab.namespaces import Netns


@contextmanager
def sysctls(where: Netns, wanted: dict[str, str]) -> Iterator[None]:
    """These values inside that namespace; afterwards what was there before."""
    with ExitStack() as stack:
        for key, value in wanted.items():
            stack.callback(where.write_sysctl, key, where.call(Path("/proc/sys", key).read_text).strip())
            where.write_sysctl(key, value)
        yield


@contextmanager
def strict_reverse_path(where: Netns, *, src_valid_mark: bool = True) -> Iterator[None]:
    """rp_filter=1 on all, eth0 and lo (RFC 3704 2.2; Documentation/networking/ip-sysctl.rst)."""
    wanted = {f"net/ipv4/conf/{scope}/rp_filter": "1" for scope in ("all", "eth0", "lo")}
    with sysctls(where, wanted | {"net/ipv4/conf/all/src_valid_mark": str(int(src_valid_mark))}):
        yield
