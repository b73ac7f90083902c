"""The node's clock, and locks that are not let go. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import NODE, Clock, Facts
from agent.doctor.findings import Finding, Severity

IDS: Final = {
    "clock": "whether the clock is kept, and whether it jumps",
    "xtables-lock": "who holds the lock of iptables, or of a pod's namespace",
}
_JUMP_S: Final = 0.1
"""NTP slews at 500 ppm (adjtimex(2)): 1 ms in the two seconds of a look. A step is larger than 128 ms (ntpd(8))."""
_MAX_ERROR_S: Final = 1.0
"""Certificates hold from a few seconds before they are signed; logs of two nodes are compared by the second."""
_WHY_TIME: Final = (
    "certificates and tokens are refused as not yet valid or expired, and logs, traces and Events of two nodes cannot "
    "be put in order"
)


def check(facts: Facts) -> Iterator[Finding]:
    if facts.clock is not None:
        yield from _clock(facts.clock)
    for lock in facts.locks or ():
        who = f"pid {lock.pid} ({lock.command})" if lock.pid > 0 else "a process of another pid namespace"
        yield Finding(
            "xtables-lock",
            Severity.WARNING,
            NODE,
            f"{who} has held the lock {lock.file} for the {lock.looked_s:.1f} s of this look",
            "iptables-legacy, kube-proxy and CNI plugins wait for it, and pods start late; for a change it is held for "
            "milliseconds",
            "see what the process waits for (cat /proc/PID/stack, strace -p PID), and end it if it hangs",
        )


def _clock(clock: Clock) -> Iterator[Finding]:
    if abs(clock.jump_s) >= _JUMP_S:
        yield Finding(
            "clock",
            Severity.SERIOUS,
            NODE,
            f"the clock jumped by {clock.jump_s:+.3f} s during the {clock.looked_s:.1f} s of this look",
            f"somebody sets it in steps: {_WHY_TIME}",
            "one time service only, which slews: chronyc tracking, timedatectl timesync-status; none beside it",
        )
    if not clock.synchronised or clock.max_error_s > _MAX_ERROR_S:
        kept = "is kept by nobody" if not clock.synchronised else f"may be wrong by {clock.max_error_s:.1f} s"
        yield Finding(
            "clock",
            Severity.WARNING,
            NODE,
            f"the clock {kept} (adjtimex(2))",
            _WHY_TIME,
            "run chronyd, systemd-timesyncd or ntpd on the node; some hypervisors keep it unseen: compare with date",
        )
