"""A node's own pid and mount namespaces, in the lab's network namespace: its /proc has its own first process, its /run
is its own, and what is mounted in /run/netns is seen in containers. The machine sees nothing of it, and all of it ends
with its first process."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from agent.lab import processes
from agent.lab.node import Lab

# Propagation: mounts of the machine's end up in neither; containers see the node's (unshare(1) makes all private, and
# slaves can only be made of what is shared).
_FIRST: Final = """set -e
mkdir "$AT/run"
mount -t tmpfs tmpfs "$AT/run"
mkdir -p "$AT/run/netns" "$AT/run/headgate"
mount --bind "$HEADGATE" "$AT/run/headgate"
mount --rbind "$AT/run" /run
mount -t proc proc /proc
mount --make-rshared /
touch "$AT/up"
# Who loses its parent is its child: none is to stay a zombie, and what is ignored stays so over exec (POSIX, exec).
trap "" CHLD
exec sleep infinity
"""


class Apart:
    """Its /run/headgate is the lab's run directory."""

    def __init__(self, lab: Lab, at: Path) -> None:
        self._lab = lab
        self._at = at
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        # The script as an argument: after the mounts nothing of /run is where it was.
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", _FIRST]
        paths = {"AT": str(self._at), "HEADGATE": str(self._lab.run_directory)}
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **paths}
        with (self._at / "boot.log").open("wb") as log:
            self._process = self._lab.node.popen(words, env=environment, start_new_session=True, stderr=log)
        self._lab.wait("the node's first process", self._is_up)

    def cut_power(self) -> None:
        """Every process ends, and /run is empty."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()  # and its child with it, and with that all that it had
        process.wait()
        (self._at / "up").unlink()
        (self._at / "run").rmdir()
        for left in self._lab.run_directory.iterdir():
            left.unlink()

    def enter(self) -> tuple[str, ...]:
        """The words before a command that is to run there."""
        assert self._process is not None
        (first,) = processes.children(self._process.pid)
        return ("nsenter", f"--target={first}", "--mount", "--pid", "--")

    def close(self) -> None:
        if self._process is not None:
            self.cut_power()

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._at / "boot.log").read_text()
        return (self._at / "up").exists()
