"""`python apart.py PROC COMMAND…`: the command as in a pod of its own, in a pid and a mount namespace. /proc is its
own, the node's is seen at PROC. Signals are passed on, and it does not outlive this process."""

import ctypes
import os
import signal
import sys

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_REC_PRIVATE, MS_BIND = 0x4000 | 1 << 18, 0x1000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _do(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def main(node_proc: str, *command: str) -> int:
    _do("unshare", CLONE_NEWNS | CLONE_NEWPID)
    _do("mount", None, b"/", None, MS_REC_PRIVATE, None)
    _do("mount", b"/proc", node_proc.encode(), None, MS_BIND, None)
    child = os.fork()
    if child == 0:
        _do("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
        _do("mount", b"proc", b"/proc", b"proc", 0, None)
        os.execvp(command[0], command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _: os.kill(child, which))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
