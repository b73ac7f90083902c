"""The whole look at a node: every kind of facts once, each on its own, and what could not be looked at told."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from agent.doctor.facts import NODE, Facts, Features, HeldLock, Namespace, SocketPrograms
from agent.doctor.findings import Unseen
from agent.doctor.gather import admin, bpf, clock, cni, features, ipvs, locks, namespace, objects, processes
from agent.doctor.gather.alike import Alike
from agent.doctor.gather.locks import FileId, Holder
from agent.doctor.gather.namespace import Looked, Place
from agent.kernel.refused import KernelRefused
from proxy.api.constants import PROXY_ADMIN_SOCKET, RUN_DIRECTORY

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sought:
    """`places`: the pods' namespaces. `objects` None: where the agent or proxy of `run_dir` takes them from. The rest:
    where things are on a node."""

    places: tuple[Place, ...] = ()
    run_dir: Path = Path(RUN_DIRECTORY)
    objects: Path | None = None
    cni: Path = cni.DIRECTORY
    lock_files: tuple[Path, ...] = locks.XTABLES_LOCKS
    cilium: Path = bpf.CILIUM_CONFIGURATION


@dataclass(slots=True)
class _Notes:
    """What could not be looked at."""

    unseen: list[Unseen] = field(default_factory=list)

    def tried(self, what: str, read: Callable[[], T], where: str = NODE) -> T | None:
        try:
            return read()
        except (OSError, KernelRefused, ValueError) as error:
            self.unseen.append(Unseen(what, where, namespace.reason_of(error)))
            return None


def examine(sought: Sought) -> Facts:
    """Changes nothing. Raises nothing for what it finds or cannot find."""
    notes = _Notes()
    began = clock.now()
    lockable = _lockable(sought)
    locked = notes.tried("locks", lambda: locks.holders(lockable))
    alike = Alike()
    looked, tried = _side_by_side(sought, notes, alike)
    own = namespace.here(NODE, None, notes.unseen, alike)
    seen = processes.processes(looked.ids, sought.run_dir)
    pods = _with_owners(_with_processes(looked, seen))
    if seen.unreadable:
        reason = f"{seen.unreadable} of them may not be seen from here; needs root, or CAP_SYS_PTRACE"
        notes.unseen.append(Unseen("processes", NODE, reason))
    facts = Facts(
        own,
        pods,
        tried,
        notes.tried("bpf programs", lambda: _programs(sought, tried, seen.cgroups)),
        cni=notes.tried("CNI configuration", lambda: cni.directory(sought.cni), f"directory {sought.cni}"),
        descriptors=notes.tried("descriptors", lambda: processes.descriptors(seen.mesh)),
        ipvs=notes.tried("IPVS", ipvs.ipvs),
    )
    facts = _with_policy(facts, sought, seen.objects, notes)
    checked = notes.tried("clock", lambda: clock.clock(began))
    return replace(facts, clock=checked, locks=_held(lockable, locked, began, notes), unseen=_all(notes, looked))


def _side_by_side(sought: Sought, notes: _Notes, alike: Alike) -> tuple[Looked, Features | None]:
    """Trying the kernel's features waits for the kernel as much as looking into the pods does."""
    tried: list[Features | None] = []
    trial = threading.Thread(target=lambda: tried.append(notes.tried("kernel features", features.features)))
    trial.start()
    try:
        looked = namespace.look(sought.places, alike)
    finally:
        trial.join()
    return looked, tried[0] if tried else None


# ── Processes ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _with_processes(looked: Looked, seen: processes.Seen) -> tuple[Namespace, ...]:
    by_where = {where: seen.by_netns.get(netns, []) for netns, where in looked.ids.items()}
    return tuple(replace(pod, processes=tuple(by_where.get(pod.where, ()))) for pod in looked.namespaces)


def _with_owners(pods: tuple[Namespace, ...]) -> tuple[Namespace, ...]:
    """Who holds the proxy's ports, where the proxy does not."""
    suspects = [
        listener.inode
        for pod in pods
        for listener in pod.listening or ()
        if listener.is_on_our_port and not listener.is_the_proxys
    ]
    if not suspects:
        return pods
    owners = processes.owners(suspects)

    def named(pod: Namespace) -> Namespace:
        listening = tuple(
            replace(one, pid=owner.pid, command=owner.command) if (owner := owners.get(one.inode)) else one
            for one in pod.listening or ()
        )
        return replace(pod, listening=None if pod.listening is None else listening)

    return tuple(named(pod) for pod in pods)


def _programs(sought: Sought, tried: Features | None, cgroups: set[str]) -> SocketPrograms | None:
    """On the tree's root and wherever a pod's processes are: a program may be attached further down only."""
    if tried is None or tried.cgroup2 is None:
        return None
    below = (f"{tried.cgroup2}{path}" for path in sorted(cgroups) if path != "/" and not path.startswith("/.."))
    return bpf.socket_programs((tried.cgroup2, *below), sought.cilium)


# ── Policy ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _with_policy(facts: Facts, sought: Sought, found: Path | None, notes: _Notes) -> Facts:
    directory = sought.objects or found
    if directory is None:
        reason = "no directory of objects is known: give --directory, as the proxy's --config-dir"
        notes.unseen.append(Unseen("objects", NODE, reason))
    else:
        read = notes.tried("objects", lambda: objects.read(directory), f"directory {directory}")
        if read is not None:
            declared, unseen = read
            notes.unseen += unseen
            facts = replace(facts, declared=declared)
    path = sought.run_dir / PROXY_ADMIN_SOCKET
    if path.exists():
        facts = replace(facts, self_calls=notes.tried("proxy", lambda: admin.self_calls(path), f"socket {path}"))
    return facts


# ── Locks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _lockable(sought: Sought) -> dict[FileId, str]:
    """istio-cni and our own agent lock a pod's namespace instead of the one file of all (agent.kernel.netns_lock)."""
    return locks.files((*sought.lock_files, *(place.path for place in sought.places)))


def _held(
    lockable: dict[FileId, str], before: frozenset[Holder] | None, began: clock.Instant, notes: _Notes
) -> tuple[HeldLock, ...] | None:
    after = notes.tried("locks", lambda: locks.holders(lockable))
    if before is None or after is None:
        return None
    return locks.held(before, after, (clock.now().monotonic_ns - began.monotonic_ns) / 1e9)


def _all(notes: _Notes, looked: Looked) -> tuple[Unseen, ...]:
    return tuple(dict.fromkeys((*notes.unseen, *sorted(looked.unseen, key=lambda one: (one.where, one.what)))))
