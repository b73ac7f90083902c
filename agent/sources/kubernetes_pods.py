"""This node's pods: who they are and whether they are selected, from the API server; where they are, from the node.

Neither is enough alone: a pod is told of once both know it. One whose namespace is not found yet is looked for often at
first, since its traffic waits for nothing.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.kube.client import ApiClient
from agent.kube.resources import Resource, Selection
from agent.kube.watch import Hearing, Name, Pace, Watch
from agent.pods import InvalidPod, NetnsId, Pairs, PodRef, sorted_pairs
from agent.pods.sandbox import Sandbox
from agent.pods.selection import Selection as MeshSelection
from agent.pods.selection import left_out, says_so, unselectable
from agent.printable import printable
from agent.sources.events import PodChanged, PodGone, PodSeen, Skipped, SourceEvent
from agent.sources.held_pods import HeldPod, HeldPods
from agent.sources.judgements import Judgements
from agent.sources.kinds import PODS
from agent.sources.kube_pod import NodePod, node_pod
from agent.sources.seen_sandboxes import Scan, seen_now

NAMESPACES: Final = Resource("", ("v1",), "Namespace", "namespaces")
SOUGHT_EVERY_S: Final = 0.1
"""While a selected pod has no namespace yet: a scan takes 15 µs a process of the node."""
SOUGHT_LONG_S: Final = 10.0
"""After so long it is looked for as all are: it may be pulling an image, or its runtime may hide it."""
LOOKED_EVERY_S: Final = 2.0
"""For namespaces that were made anew under the same pod (B48), and processes that have ended: their paths with them."""
_RESTS: Final = 4.0
"""So many times the CPU time of the last scan: a fifth of a core at the most, however many pods come and go."""

_GATHERS: Final = 9.0
"""So many times the CPU time of going through all pods (3 ms at 250): what changes meanwhile is gone through together,
two hundred changes a second while twenty pods come and go. A pod whose runtime waits for it does not wait for this."""

_NOT_FOUND: Final = "its network namespace is not found yet: no process of it runs here"
_NO_ADDRESS: Final = "the API server does not know its address yet"

LeftBehind = Callable[[Iterable[Sandbox]], frozenset[NetnsId]]
"""In which of these a former agent left rules. Called on a thread beside the loop."""


@dataclass(frozen=True, slots=True)
class _Told:
    pod: PodRef
    sandbox: Sandbox


class KubernetesPods:
    """Iterate over it for what happens; run `watch` beside it. `skipped`: pods of the node that are none of ours."""

    def __init__(
        self,
        client: ApiClient,
        pace: Pace,
        node_name: str,
        selection: MeshSelection,
        scan: Scan,
        left_behind: LeftBehind = lambda sandboxes: frozenset(),
    ) -> None:
        self._left_behind = left_behind
        self._looked_into: set[NetnsId] = set()
        self._former: set[NetnsId] = set()
        self._client = client
        self._pace = pace
        self._node_name = node_name
        self._selection = selection
        self._judgements = Judgements(selection)
        self._scan = scan
        self._pods: dict[Name, NodePod | InvalidPod] = {}
        self._namespaces: dict[str, Pairs] = {}
        self._told: dict[str, _Told] = {}
        self._at_once: deque[PodSeen] = deque()
        self._sandboxes: Mapping[str, Sandbox] = {}
        self._held = HeldPods()
        self._detached: set[NetnsId] = set()
        self._sought_since_s: dict[str, float] = {}
        self._scan_problem = ""
        self._scan_took_s = 0.0
        self._more = asyncio.Event()
        self._look = asyncio.Event()
        self._looking = asyncio.Lock()
        on_node = Selection(field_selector=f"spec.nodeName={node_name}")
        self._watches = (
            Watch(client, PODS, Hearing(_taken, self._pods_listed, self._pod_seen), pace, on_node),
            Watch(client, NAMESPACES, Hearing(self._marks, self._namespaces_listed, self._namespace_seen), pace),
        )
        self.skipped: tuple[Skipped, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        watches = (watch.problem for watch in self._watches)
        wrong = (f"pod {printable('/'.join(name))}: {pod}" for name, pod in self._pods.items() if _is_wrong(pod))
        return tuple(problem for problem in (*watches, self._scan_problem, *wrong) if problem)

    @property
    def place(self) -> str:
        return f"the API server, node {self._node_name}"

    def of_node(self) -> Iterator[tuple[NodePod, str]]:
        """Every pod that can be read; with it, of one that is selected and not told of yet, why."""
        for pod in self._pods.values():
            if isinstance(pod, NodePod):
                yield pod, _unplaced(pod) if pod.ref.uid in self._sought_since_s else ""

    def listed_at(self, namespace: str, name: str) -> str | None:
        """Only of pods that are told of: where the others' would be, nobody knows."""
        told = (told for told in self._told.values() if (told.pod.namespace, told.pod.name) == (namespace, name))
        return next((one.sandbox.netns_path for one in told), None)

    async def watch(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run())
            group.create_task(self._look_over())

    async def first(self) -> list[SourceEvent]:
        """All pods that are there, once the API server has told of all and the node was looked over."""
        while not all(watch.complete for watch in self._watches):
            await self._more.wait()
            self._more.clear()
        await self._looked()
        return self._events()

    async def __aiter__(self) -> AsyncIterator[SourceEvent]:
        loop = asyncio.get_running_loop()
        not_before_s = 0.0
        while True:
            await self._more.wait()
            self._more.clear()
            while self._at_once:
                yield self._at_once.popleft()
            if not all(watch.complete for watch in self._watches):
                continue
            if (rest_s := not_before_s - loop.time()) > 0:
                loop.call_later(rest_s, self._more.set)
                continue
            began_s = time.thread_time()
            events = self._events()
            not_before_s = loop.time() + _GATHERS * (time.thread_time() - began_s)
            for event in events:
                yield event

    # ── What a runtime tells ───────────────────────────────────────────────────────────────────────────────────────
    async def known(self, namespace: str, name: str, uid: str) -> NodePod:
        """As the watch knows it, else asked for, its namespace too: a runtime may be faster. Raises ApiRefused,
        CannotReach, InvalidPod, InvalidAccess."""
        pod = self._pods.get(Name(namespace, name))
        if not isinstance(pod, NodePod) or (uid and pod.known_as != uid):
            pod = node_pod(await self._client.get(f"{PODS.path('v1', namespace)}/{name}"))
        if namespace not in self._namespaces:
            self._namespaces[namespace] = self._marks(await self._client.get(f"{NAMESPACES.path('v1')}/{namespace}"))
        return pod

    def none_of_ours(self, pod: NodePod) -> str:
        """Why; empty for a pod that is to be steered."""
        marks = self._namespaces.get(pod.ref.namespace, ())
        return unselectable(pod.candidate, self._selection) or left_out(pod.candidate, marks, self._selection)

    def hold(self, container_id: str, pod: PodRef, sandbox: Sandbox) -> None:
        """Told of at once, and until its processes are found or it is let go."""
        self._detached.discard(sandbox.netns_id)
        self._held.hold(HeldPod(container_id, pod, sandbox))
        if self._is_new(pod, sandbox):
            self._told[pod.uid] = _Told(pod, sandbox)
            self._at_once.append(PodSeen(pod, sandbox.netns_path, sandbox.netns_id))
        self._more.set()

    def let_go(self, container_id: str, netns_id: NetnsId | None) -> None:
        """The runtime takes the sandbox down. Of one that is not the pod's any more nothing follows."""
        held = self._held.of_container(container_id)
        if held is not None:
            self._held.drop(held)
            self._detached.add(held.sandbox.netns_id)
            self._untold(held.pod.uid)
        if netns_id is not None and any(told.sandbox.netns_id == netns_id for told in self._told.values()):
            self._detached.add(netns_id)
        self._changed()

    def keep_only(self, container_ids: frozenset[str]) -> None:
        for held in self._held:
            if held.container_id not in container_ids:
                self.let_go(held.container_id, None)

    # ── What the API server tells ──────────────────────────────────────────────────────────────────────────────────
    def _pods_listed(self, found: Mapping[Name, NodePod | InvalidPod]) -> None:
        self._pods = dict(found)
        self._changed()

    def _pod_seen(self, name: Name, pod: NodePod | InvalidPod | None) -> None:
        former = self._pods.pop(name, None)
        if pod is not None:
            self._pods[name] = pod
        if not _is_our_voice(pod, former):
            self._changed()

    def _namespaces_listed(self, found: Mapping[Name, Pairs]) -> None:
        self._namespaces = {name.name: marks for name, marks in found.items()}
        self._changed()

    def _namespace_seen(self, name: Name, marks: Pairs | None) -> None:
        self._namespaces[name.name] = marks or ()
        self._changed()

    def _changed(self) -> None:
        self._look.set()
        # Looked at when the watch has returned: only then it is complete.
        asyncio.get_running_loop().call_soon(self._more.set)

    def _marks(self, body: dict[str, Any]) -> Pairs:
        """Of its labels and annotations those that select; what is none is none of ours."""
        keys = {mark.key for mark in self._selection.marks}
        return tuple(pair for pair in _pairs_of(body) if pair[0] in keys)

    def _untold(self, uid: str) -> None:
        for waiting in [seen for seen in self._at_once if seen.pod.uid == uid]:
            self._at_once.remove(waiting)
            del self._told[uid]

    def _is_new(self, pod: PodRef, sandbox: Sandbox) -> bool:
        """Nothing has to be taken back first: of itself, of its namespace's number, of its addresses."""
        return pod.uid not in self._told and not any(
            told.sandbox.netns_id == sandbox.netns_id or set(pod.addresses) & set(told.pod.addresses)
            for told in self._told.values()
        )

    # ── What follows ───────────────────────────────────────────────────────────────────────────────────────────────
    async def _look_over(self) -> None:
        """Beside what is told: a runtime's word is not to wait for it."""
        while True:
            await self._looked()
            self._more.set()
            await asyncio.sleep(max(SOUGHT_EVERY_S, _RESTS * self._scan_took_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s()):
                    await self._look.wait()
            self._look.clear()

    def _every_s(self) -> float:
        latest_s = self._pace.now_s() - SOUGHT_LONG_S
        return (
            SOUGHT_EVERY_S if any(since_s > latest_s for since_s in self._sought_since_s.values()) else LOOKED_EVERY_S
        )

    async def _looked(self) -> None:
        async with self._looking:  # the later look counts
            try:
                seen = await asyncio.to_thread(seen_now, self._scan, tuple(self._held), self._sandboxes)
            except OSError as error:
                self._scan_problem = f"processes cannot be looked over: {error}"
                return
        found, self._scan_took_s = seen.sandboxes, seen.took_s
        for held in seen.gone:  # with no word of the runtime, or none that an agent was there to hear
            self._held.drop(held)
        # A number is given to the next namespace once its own is gone.
        self._detached &= {sandbox.netns_id for sandbox in found.values()}
        self._sandboxes = {uid: one for uid, one in found.items() if one.netns_id not in self._detached}
        self._scan_problem = ""
        await self._look_into()

    async def _look_into(self) -> None:
        """Each pod that is none of ours, once: it may have been, while no agent was here to let it go."""
        there = {sandbox.netns_id for sandbox in self._sandboxes.values()}
        self._looked_into &= there
        self._former &= there
        if not all(watch.complete for watch in self._watches):
            return
        pods = [pod for pod in self._pods.values() if isinstance(pod, NodePod) and pod.ref.uid not in self._told]
        new = {
            sandbox.netns_id: sandbox
            for pod in pods
            if (sandbox := self._sandboxes.get(pod.known_as)) is not None
            and sandbox.netns_id not in self._looked_into
            and not pod.candidate.host_network
            and (pod.over or self.none_of_ours(pod))
        }
        if new:
            self._looked_into |= new.keys()
            self._former |= await asyncio.to_thread(self._left_behind, tuple(new.values()))

    def _events(self) -> list[SourceEvent]:
        """Gone before seen: an address, and a namespace's number, may pass from one pod to the next."""
        now, skipped, sought = self._now()
        self.skipped = tuple(skipped)
        now_s = self._pace.now_s()
        if sought - self._sought_since_s.keys():
            self._look.set()
        self._sought_since_s = {uid: self._sought_since_s.get(uid, now_s) for uid in sought}
        events: list[SourceEvent] = [PodGone(uid) for uid in self._told if uid not in now]
        for uid, told in now.items():
            before = self._told.get(uid)
            if before is None:
                events.append(PodSeen(told.pod, told.sandbox.netns_path, told.sandbox.netns_id))
            elif before != told:
                events.append(PodChanged(told.pod, told.sandbox.netns_path, told.sandbox.netns_id))
        self._told = now
        return events

    def _now(self) -> tuple[dict[str, _Told], list[Skipped], set[str]]:
        """Who is to be told of, who is not, and whose namespaces are still to be found."""
        now: dict[str, _Told] = {}
        skipped: list[Skipped] = []
        sought: set[str] = set()
        for name, pod in sorted(self._pods.items()):
            if isinstance(pod, InvalidPod):
                self._keep_told(name, now)
                continue
            judged = self._judgements.of(name, pod, self._namespaces.get(name.namespace, ()))
            if never := judged.never:
                found = self._sandboxes.get(pod.known_as)
                if found is not None and found.netns_id in self._former and not pod.candidate.host_network:
                    now[pod.ref.uid] = _Told(replace(pod.ref, left_out=never), found)
                else:
                    skipped.append(Skipped(*name, never))
                continue
            reason = judged.reason
            before = self._told.get(pod.ref.uid)
            sandbox, ref = self._placed(pod)
            was_ours = before is not None or (sandbox is not None and sandbox.netns_id in self._former)
            if sandbox is not None and (not reason or was_ours or says_so(pod.candidate, self._selection)):
                # Also one that is not selected any more, or says that it is not: what it holds of ours must go.
                now[pod.ref.uid] = _Told(replace(ref, left_out=reason) if reason else ref, sandbox)
            elif reason:
                skipped.append(Skipped(*name, reason))
            else:
                sought.add(pod.ref.uid)
                skipped.append(Skipped(*name, _unplaced(pod)))
        now.update({held.pod.uid: _Told(held.pod, held.sandbox) for held in self._held if held.pod.uid not in now})
        self._judgements.keep_only(self._pods.keys())
        return now, skipped, sought

    def _placed(self, pod: NodePod) -> tuple[Sandbox | None, PodRef]:
        """Found by its processes; before there are any, where its runtime said, with the addresses that it said."""
        uid, found = pod.ref.uid, self._sandboxes.get(pod.known_as)
        held = self._held.get(uid)
        if held is None:
            # Its address is what tells its namespace from one that a container of it has made for itself.
            return (found if pod.ref.addresses or uid in self._told else None), pod.ref
        given = held.pod.addresses or pod.ref.addresses
        if found is not None and found.netns_id == held.sandbox.netns_id and set(pod.ref.addresses) & set(given):
            self._held.drop(held)
            return found, pod.ref
        # Processes and addresses that do not fit are of the sandbox before this one (B48).
        return held.sandbox, replace(pod.ref, addresses=given)

    def _keep_told(self, name: Name, now: dict[str, _Told]) -> None:
        """A version that cannot be read takes nothing away."""
        now.update({uid: told for uid, told in self._told.items() if (told.pod.namespace, told.pod.name) == name})


def _unplaced(pod: NodePod) -> str:
    return _NOT_FOUND if pod.ref.addresses else _NO_ADDRESS


def _taken(body: dict[str, Any]) -> NodePod | InvalidPod:
    try:
        return node_pod(body)
    except InvalidPod as error:
        return error


def _pairs_of(body: dict[str, Any]) -> Pairs:
    """Labels and annotations."""
    metadata = body.get("metadata")
    found: list[tuple[str, str]] = []
    for key in ("annotations", "labels"):
        pairs = metadata.get(key) if isinstance(metadata, dict) else None
        if isinstance(pairs, dict):
            found += [(str(name), value) for name, value in pairs.items() if isinstance(value, str)]
    return sorted_pairs(dict(found).items())


def _is_our_voice(pod: NodePod | InvalidPod | None, former: NodePod | InvalidPod | None) -> bool:
    """Nothing has changed but what an agent has written onto it itself: hearing that of 250 at once took a fifth of
    a core."""
    if not isinstance(pod, NodePod) or not isinstance(former, NodePod) or pod.told == former.told:
        return False
    return replace(pod, told=former.told) == former


def _is_wrong(pod: NodePod | InvalidPod) -> bool:
    return isinstance(pod, InvalidPod)
