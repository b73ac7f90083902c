"""What the node's container runtime does with a chain that has changed since a pod was started."""

from pathlib import Path
from typing import Final

_CRIO: Final = "crio"
"""The daemon's own name (proc(5), comm). A pod's process may call itself so: then a program stays that does nothing."""


def remembers_chains(proc: Path) -> bool:
    """cri-o asks the plugins of the chain that a pod was added with, which libcni has cached (ocicni: TearDownPod,
    GetNetworkListCachedConfig): one whose program is gone keeps the pod from ending. containerd asks those of the
    present one. Raises OSError when `proc` cannot be listed."""
    return any(_name(process) == _CRIO for process in proc.iterdir() if process.name.isdecimal())


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""  # it has ended
