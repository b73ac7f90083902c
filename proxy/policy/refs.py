"""What the supervisor calls each object of policy, and what a worker must hear to come from one snapshot to another."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.model.changes import changes
from proxy.model.routing import (
    Backend,
    Endpoint,
    HttpRule,
    InboundPort,
    MissingBackend,
    RetryPolicy,
    ServiceName,
    ServicePort,
)
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import Workload
from proxy.policy import rows
from proxy.policy.rows import PARTS_A_ROW, Row, Shared, workload_fields

NOTHING: Final = PolicySnapshot(0, {}, {}, {}, {}, ())
"""What a worker that has just started knows."""


@dataclass(slots=True)
class _Named:
    """`since` and `until` are generations: in it from the first on, no longer in the last (0: still). `holders` counts
    what holds the object in the newest snapshot."""

    ref: int
    value: Shared
    since: int
    holders: int = 1
    until: int = 0


class RefTable:
    """Names every object of the newest snapshot, and of older ones for as long as a worker may be there still.

    Objects are told apart by identity: snapshots share what did not change. An object that has a name since generation
    S is part of every later snapshot up to the newest or to its end, so whoever is at S or later knows it.
    """

    def __init__(self) -> None:
        self.newest = NOTHING
        self._former = NOTHING
        self._step: tuple[_Changes, ...] = ((), (), (), ())
        self._named: dict[int, _Named] = {}
        self._gone: list[_Named] = []
        self._last_ref = 0

    def advance(self, snapshot: PolicySnapshot) -> None:
        """Take in the next snapshot, whose generation must be greater. Costs a look at each key of a map that changed,
        and a walk through what is new or gone."""
        self._former, self.newest = self.newest, snapshot
        self._step = _differences(self._former, snapshot)
        released: list[Shared] = []
        for changed in self._step:
            for _, was, now in changed:
                if now is not None:
                    self._hold(now)
                if was is not None:
                    released.append(was)
        for value in released:
            self._release(value)

    def forget_before(self, generation: int) -> None:
        """No worker is at an older generation than this: what ended by then need not be told to anybody again."""
        self._gone = [named for named in self._gone if named.until > generation]

    def rows_from(self, base: PolicySnapshot) -> Iterator[Row]:
        """What leads a worker from `base` (NOTHING, or a snapshot that was the newest since `forget_before`) to the
        newest snapshot."""
        step = self._step if base is self._former else _differences(base, self.newest)
        return _Telling(self._named, self._gone, base, step).rows()

    def _hold(self, value: Shared) -> None:
        named = self._named.get(id(value))
        if named is not None:
            named.holders += 1
            return
        self._last_ref += 1
        self._named[id(value)] = _Named(self._last_ref, value, self.newest.generation)
        for part in _parts(value):
            self._hold(part)

    def _release(self, value: Shared) -> None:
        named = self._named[id(value)]
        named.holders -= 1
        if named.holders:
            return
        # Kept in `_gone` with its value: an id may be given to another object as soon as its owner is freed.
        del self._named[id(value)]
        named.until = self.newest.generation
        self._gone.append(named)
        for part in _parts(value):
            self._release(part)


class _Telling:
    """One delta: rows for what the hearer lacks, parts before what they are part of."""

    def __init__(
        self, named: Mapping[int, _Named], gone: list[_Named], base: PolicySnapshot, step: "tuple[_Changes, ...]"
    ) -> None:
        self._named = named
        self._gone = [one for one in gone if one.since <= base.generation < one.until]
        self._base = base
        self._step = step
        self._told: set[int] = set()
        self._former: dict[tuple[str, int, str], Backend] = {}
        self._ref_of_gone = {id(one.value): one.ref for one in self._gone}

    def rows(self) -> Iterator[Row]:
        setters: tuple[Callable[[Any, int], Row], ...] = (
            lambda key, ref: (rows.SET_SERVICE, *key, ref),
            lambda key, ref: (rows.SET_WORKLOAD, key, ref),
            lambda key, ref: (rows.SET_POD, *key, ref),
            lambda key, ref: (rows.SET_INBOUND, *key, ref),
        )
        yield from self._aliases()
        sets: list[Row] = []
        for changed, setter in zip(self._step, setters, strict=True):
            for key, was, now in changed:
                if isinstance(was, ServicePort):
                    self._note_former(was)
                if now is not None:
                    yield from self._tell(now)
                sets.append(setter(key, 0 if now is None else self._named[id(now)].ref))
        yield from sets
        dropped = [one.ref for one in self._gone]
        for start in range(0, len(dropped), PARTS_A_ROW):
            yield (rows.DROP, tuple(dropped[start : start + PARTS_A_ROW]))

    def _aliases(self) -> Iterator[Row]:
        """What was let go and taken up again since: the hearer, who missed both, has it still, under its former name.
        No key need have changed."""
        for former in self._gone:
            named = self._named.get(id(former.value))
            if named is not None:
                self._told.add(named.ref)
                yield (rows.ALIAS, named.ref, former.ref)

    def _note_former(self, was: ServicePort) -> None:
        for backend in (was.all_endpoints, *(w.backend for rule in was.rules for w in rule.backends)):
            if isinstance(backend, Backend) and len(backend.endpoints) > PARTS_A_ROW:
                self._former[backend.service.host, backend.port, backend.subset] = backend

    def _tell(self, value: Shared) -> Iterator[Row]:
        named = self._named[id(value)]
        if named.since <= self._base.generation or named.ref in self._told:
            return
        self._told.add(named.ref)
        for part in _parts(value):
            yield from self._tell(part)
        yield from self._row(named.ref, value)

    def _ref(self, value: Shared) -> int:
        return self._named[id(value)].ref

    def _refs(self, values: tuple[Shared, ...]) -> tuple[int, ...]:
        return tuple(self._named[id(value)].ref for value in values)

    def _row(self, ref: int, value: Shared) -> Iterator[Row]:
        match value:
            case Workload():
                yield (rows.WORKLOAD, ref, *workload_fields(value))
            case Endpoint(address, workload):
                yield (rows.ENDPOINT, ref, address.host, address.port, self._ref(workload))
            case Backend(service, port, subset, endpoints):
                last = yield from self._endpoints(ref, value)
                yield (rows.BACKEND, ref, self._ref(service), port, subset, self._refs(endpoints[last:]))
            case MissingBackend(service, port, subset, reason):
                yield (rows.MISSING_BACKEND, ref, self._ref(service), port, subset, reason)
            case ServiceName(namespace, name, host):
                yield (rows.SERVICE_NAME, ref, namespace, name, host)
            case RetryPolicy(attempts, retry_on, back_off_s):
                yield (rows.RETRY, ref, attempts, tuple(sorted(reason.value for reason in retry_on)), back_off_s)
            case HttpRule(name, backends, retry):
                parts = tuple(weighted.backend for weighted in backends)
                last = yield from self._cut(ref, parts)
                weights = tuple(weighted.weight for weighted in backends)
                yield (rows.RULE, ref, name, self._ref(retry), weights, self._refs(parts[last:]))
            case ServicePort(service, port, protocol, everything, rules_, refused):
                last = yield from self._cut(ref, rules_)
                head = (self._ref(service), port, protocol.value, self._ref(everything), refused)
                yield (rows.SERVICE_PORT, ref, *head, self._refs(rules_[last:]))
            case InboundPort(service, protocol):
                yield (rows.INBOUND_PORT, ref, self._ref(service), protocol.value)

    def _cut(self, ref: int, parts: tuple[Shared, ...], start: int = 0) -> Generator[Row, None, int]:
        """Rows for all parts from `start` on but the last few; returns where these begin."""
        while len(parts) - start > PARTS_A_ROW:
            yield (rows.PARTS, ref, self._refs(parts[start : start + PARTS_A_ROW]))
            start += PARTS_A_ROW
        return start

    def _endpoints(self, ref: int, backend: Backend) -> Generator[Row, None, int]:
        """As `_cut`; what a long backend has in common with its former self is taken from there."""
        endpoints = backend.endpoints
        former = self._former.get((backend.service.host, backend.port, backend.subset))
        if former is None or len(endpoints) <= PARTS_A_ROW:
            return (yield from self._cut(ref, endpoints))
        head, tail = _in_common(former.endpoints, endpoints)
        known = self._ref_of_gone.get(id(former)) or self._ref(former)
        if head:
            yield (rows.PARTS_OF, ref, known, 0, head)
        middle = endpoints[: len(endpoints) - tail]
        start = yield from self._cut(ref, middle, head)
        if not tail:
            return start
        yield (rows.PARTS, ref, self._refs(middle[start:]))
        yield (rows.PARTS_OF, ref, known, len(former.endpoints) - tail, len(former.endpoints))
        return len(endpoints)


_Changes = Sequence[tuple[Any, Any, Any]]
"""Keys of one of a snapshot's maps, with the old and the new value."""


def _differences(old: PolicySnapshot, new: PolicySnapshot) -> tuple[_Changes, ...]:
    return tuple(list(changes(was, now)) for was, now in zip(_maps(old), _maps(new), strict=True))


def _maps(snapshot: PolicySnapshot) -> tuple[Mapping[Any, Any], ...]:
    return snapshot.services, snapshot.workloads, snapshot.pods, snapshot.inbound


def _parts(value: Shared) -> tuple[Shared, ...]:
    match value:
        case Endpoint(_, workload):
            return (workload,)
        case Backend(service, _, _, endpoints):
            return (service, *endpoints)
        case MissingBackend(service, _, _, _) | InboundPort(service, _):
            return (service,)
        case HttpRule(_, backends, retry):
            return (retry, *(weighted.backend for weighted in backends))
        case ServicePort(service, _, _, everything, rules_, _):
            return (service, everything, *rules_)
        case _:
            return ()


def _in_common(old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]) -> tuple[int, int]:
    """How many of the first and of the last are the same objects, without overlap."""
    most = min(len(old), len(new))
    head = next((i for i in range(most) if old[i] is not new[i]), most)
    tail = next((i for i in range(most - head) if old[-1 - i] is not new[-1 - i]), most - head)
    return head, tail
