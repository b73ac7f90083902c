"""One look over the node: where pods' processes are, and which namespaces are there without any."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.pods import NetnsId
from agent.pods.sandbox import Sandbox
from agent.sources.held_pods import HeldPod

Scan = Callable[[], Mapping[str, Sandbox]]
"""By uid as the pods' cgroups have it. Raises OSError; the next look may do better."""


@dataclass(frozen=True, slots=True)
class Seen:
    """`sandboxes` by uid; `gone`: what a runtime told of and is not there any more; `took_s`: of CPU."""

    sandboxes: Mapping[str, Sandbox]
    gone: tuple[HeldPod, ...]
    took_s: float


def seen_now(scan: Scan, held: Iterable[HeldPod], before: Mapping[str, Sandbox]) -> Seen:
    """`before`: what the last look found. A namespace outlives its pod's processes where a runtime has bound it to a
    name: cri-o keeps no process of its own in a pod (drop_infra_ctr), and a container that ended may start again after
    minutes (CrashLoopBackOff), in the same namespace and with no word to anybody. Raises OSError as `scan`."""
    began_s = time.thread_time()
    gone = tuple(one for one in held if not _is_there(one.sandbox))
    found = scan()
    named = {uid: one for uid, one in before.items() if uid not in found and _is_there(one)}
    return Seen({**named, **found}, gone, time.thread_time() - began_s)


def _is_there(sandbox: Sandbox) -> bool:
    try:
        status = Path(sandbox.netns_path).stat()
    except OSError:
        return False
    return NetnsId(status.st_dev, status.st_ino) == sandbox.netns_id
