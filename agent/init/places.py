"""Where `headgate init` must not act, and what it needs to act: read of the calling thread and its namespaces."""

from pathlib import Path
from typing import Final

from agent.init.accounts import Accounts
from agent.init.request import Surroundings
from agent.kernel import sock_diag

_INITIAL_ONLY: Final = Path("/proc/sys/net/core/netdev_max_backlog")
"""In the machine's first network namespace and in no other (net/core/sysctl_net_core.c: net_core_table is registered
for init_net alone); /proc/sys/net shows the reading thread's namespace."""
_KUBELET_PORT: Final = 10250  # k8s.io/kubernetes pkg/cluster/ports: KubeletPort
_STATUS: Final = Path("/proc/thread-self/status")

_PASSWD: Final = Path("/etc/passwd")
_GROUP: Final = Path("/etc/group")
_RESOLV_CONF: Final = Path("/etc/resolv.conf")

NET_ADMIN: Final = "CAP_NET_ADMIN"
NET_RAW: Final = "CAP_NET_RAW"
_CAPABILITIES: Final = {NET_ADMIN: 12, NET_RAW: 13}  # linux/capability.h


def node_instead_of_pod() -> str | None:
    """Why this namespace is taken for a node's, or None: rules here would lead the whole node's traffic to one pod's
    proxy (istio #55139). Raises OSError."""
    if _INITIAL_ONLY.exists():
        return "it is the machine's first one"
    if any(listener.port == _KUBELET_PORT for listener in sock_diag.listeners()):
        return f"a kubelet listens in it (port {_KUBELET_PORT})"  # a node that is itself a container: kind, k3d
    return None


def lacking(capabilities: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the capabilities that the thread has not."""
    effective = next(
        (int(line.split()[1], 16) for line in _STATUS.read_text().splitlines() if line.startswith("CapEff:")), 0
    )
    return tuple(name for name in capabilities if not effective >> _CAPABILITIES[name] & 1)


def surroundings() -> Surroundings:
    """Of the container; a file that is not there says nothing."""
    return Surroundings(Accounts.of(_content(_PASSWD), _content(_GROUP)), _content(_RESOLV_CONF))


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
