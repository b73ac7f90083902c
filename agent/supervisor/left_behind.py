"""Rules that an agent left in pods of which no source tells any more: label, selection or namespace changed while
neither agent nor proxy was there to hear of it. Asked of each pod once; its rules lead to where nobody listens."""

import errno
import logging
from collections.abc import Iterable
from typing import Final

from agent.kernel.netns import NetnsRefused, Rounds
from agent.kernel.refused import KernelRefused
from agent.pods import NetnsId
from agent.pods.sandbox import Sandbox
from agent.supervisor import holding

_log: Final = logging.getLogger("headgate.sources")
_GONE: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.ENOTDIR, errno.ESRCH})
"""What opening says of a namespace that has ended meanwhile."""


def left_behind(sandboxes: Iterable[Sandbox]) -> frozenset[NetnsId]:
    """Which of these hold rules of a node's agent, whatever they are made of. A sidecar's are none.

    On a thread that is in the agent's own namespace, and is there again afterwards. Half a millisecond a pod (250 pods,
    two busy cores).
    """
    found: set[NetnsId] = set()
    rounds = Rounds()
    try:
        for sandbox in sandboxes:
            try:
                rounds.enter(sandbox.netns_path, sandbox.netns_id)
                if holding.for_the_node():
                    found.add(sandbox.netns_id)
            except (OSError, NetnsRefused, KernelRefused) as error:
                if not isinstance(error, NetnsRefused) and getattr(error, "errno", 0) not in _GONE:
                    _log.warning("%s: former agents' rules are not looked for: %s", sandbox.netns_path, error)
            finally:
                rounds.home()
    finally:
        rounds.close()
    return frozenset(found)
