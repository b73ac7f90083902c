"""Objects sorted for compiling, kept from one generation to the next: only what changed is looked at again."""

from dataclasses import dataclass, field
from typing import TypeVar

from proxy.config.kubernetes import WORKERS_ANNOTATION
from proxy.config.objects import (
    Admitted,
    EndpointSlice,
    ObjectKey,
    ObjectSet,
    Pod,
    RefusedRoute,
    Service,
    VirtualService,
)
from proxy.config.text import printable
from proxy.model.changes import changes
from proxy.model.snapshot import Rejection
from proxy.model.workload import Workload

ServiceKey = tuple[str, str]
"""(namespace, name)"""
K = TypeVar("K")
V = TypeVar("V")
_NOTHING = ObjectSet({}, ())


@dataclass(slots=True)
class Touched:
    """What an update changed. `mentions` are the pods, (namespace, name), and addresses that have another workload."""

    services: set[ServiceKey] = field(default_factory=set)
    slices: set[ServiceKey] = field(default_factory=set)
    mentions: set[ServiceKey | str] = field(default_factory=set)
    routes: list[tuple[Admitted | None, Admitted | None]] = field(default_factory=list)
    rules: bool = False


@dataclass(slots=True)
class ObjectIndex:
    """`workloads` and `pods` are a snapshot's maps: replaced when they change, never written again.

    `lent` are a former snapshot's Workloads by pod: taken where they are equal.
    """

    lent: dict[ServiceKey, Workload] = field(default_factory=dict)
    services: dict[ServiceKey, Service] = field(default_factory=dict)
    slices: dict[ServiceKey, dict[ObjectKey, EndpointSlice]] = field(default_factory=dict)
    routes: dict[ObjectKey, Admitted] = field(default_factory=dict)
    rules: dict[ObjectKey, Admitted] = field(default_factory=dict)
    rejected: dict[ObjectKey, Rejection] = field(default_factory=dict)
    bad_numbers: dict[ObjectKey, Rejection] = field(default_factory=dict)
    pods: dict[ServiceKey, Workload] = field(default_factory=dict)
    workloads: dict[str, Workload] = field(default_factory=dict)
    hot_pods: dict[ServiceKey, int] = field(default_factory=dict)
    _objects: ObjectSet = _NOTHING
    _claims: dict[str, tuple[Pod, ...]] = field(default_factory=dict)

    def update(self, objects: ObjectSet) -> Touched:
        touched = Touched()
        pods: list[tuple[Pod | None, Pod | None]] = []
        for key, was, now in changes(self._objects.admitted, objects.admitted):
            before = None if was is None else was.value
            after = None if now is None else now.value
            _set(self.rejected, key, None if now is None else now.rejection)
            if isinstance(before, Pod) or isinstance(after, Pod):
                self._note_number(key, now)
            if before is after and key.kind not in ("VirtualService", "DestinationRule"):
                continue
            match after or before:
                case Pod():
                    pods.append(
                        (before if isinstance(before, Pod) else None, after if isinstance(after, Pod) else None)
                    )
                case Service() as service:
                    _set(self.services, (service.namespace, service.name), None if after is None else service)
                    touched.services.add((service.namespace, service.name))
                case EndpointSlice():
                    self._take_slice(key, before, after, touched)
                case VirtualService() | RefusedRoute():
                    if now is None or after is None:
                        self.routes.pop(key, None)
                    else:
                        self.routes[key] = now
                    touched.routes.append((was, now))
            if key.kind == "DestinationRule":  # a rejected one counts too: it says why a subset is not there
                _set(self.rules, key, now)
                touched.rules = True
        if pods:
            self._take_pods(pods, touched)
        self._objects = objects
        return touched

    def _take_slice(self, key: ObjectKey, before: object, after: object, touched: Touched) -> None:
        for value in (before, after):
            if isinstance(value, EndpointSlice):
                owner = (value.namespace, value.service)
                touched.slices.add(owner)
                _set(self.slices.setdefault(owner, {}), key, after if value is after else None)
                if not self.slices[owner]:
                    del self.slices[owner]

    def _take_pods(self, pods: list[tuple[Pod | None, Pod | None]], touched: Touched) -> None:
        self.pods, self.workloads = self.pods.copy(), self.workloads.copy()
        addresses: set[str] = set()
        for before, after in pods:
            for pod, there in ((before, False), (after, True)):
                if pod is not None and pod.owns_addresses:
                    addresses.update(pod.workload.addresses)
                    for address in pod.workload.addresses:
                        others = tuple(one for one in self._claims.get(address, ()) if one is not pod)
                        _set(self._claims, address, (*others, pod) if there else others or None)
            self._name_pod(before, after, touched)
        for address in addresses:
            owner = _owner(self._claims.get(address, ()))
            workload = None if owner is None else self.pods[_pod_key(owner)]
            if self.workloads.get(address) is not workload:
                _set(self.workloads, address, workload)
                touched.mentions.add(address)

    def _name_pod(self, before: Pod | None, after: Pod | None, touched: Touched) -> None:
        if after is None:
            assert before is not None
            del self.pods[_pod_key(before)]
            touched.mentions.add(_pod_key(before))
            return
        key = _pod_key(after)
        known = self.pods.get(key) or self.lent.get(key)
        workload = known if known == after.workload else after.workload
        if self.pods.get(key) is not workload:
            assert workload is not None
            self.pods[key] = workload
            touched.mentions.add(key)

    def _note_number(self, key: ObjectKey, now: Admitted | None) -> None:
        """How many workers serve a pod, and annotations that should say so and do not."""
        pod = now.value if now is not None and isinstance(now.value, Pod) else None
        workers = pod.workers if pod is not None else 1
        if self.hot_pods.get((key.namespace, key.name), 1) != workers:
            self.hot_pods = self.hot_pods.copy()
            _set(self.hot_pods, (key.namespace, key.name), workers if workers > 1 else None)
        bad = pod.bad_workers if pod is not None else ""
        _set(self.bad_numbers, key, _bad_number(now, bad) if now is not None and bad else None)


def _bad_number(admitted: Admitted, reason: str) -> Rejection:
    return Rejection(
        str(admitted.raw.key),
        f"metadata.annotations[{WORKERS_ANNOTATION}]",
        f"{reason}; one worker serves the pod",
        remedy="write a whole number in quotes, or remove the annotation",
        source=printable(admitted.raw.source),
    )


def _owner(claims: tuple[Pod, ...]) -> Pod | None:
    """An address that two pods claim belongs to the younger: the other is on its way out. Of one age, to the first."""
    return min(claims, key=lambda pod: (_Descending(pod.created), _pod_key(pod)), default=None)


@dataclass(frozen=True, slots=True)
class _Descending:
    text: str

    def __lt__(self, other: "_Descending") -> bool:
        return self.text > other.text


def _pod_key(pod: Pod) -> ServiceKey:
    return pod.workload.namespace, pod.workload.pod


def _set(known: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        known.pop(key, None)
    else:
        known[key] = value
