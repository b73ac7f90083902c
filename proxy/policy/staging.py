"""A worker's next policy snapshot, made from rows while the present one is in force."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from proxy.model.address import SocketAddress
from proxy.model.paged_map import Draft, PagedMap
from proxy.model.routing import (
    Backend,
    Endpoint,
    HttpRule,
    InboundPort,
    MissingBackend,
    Protocol,
    RetryOn,
    RetryPolicy,
    ServiceName,
    ServicePort,
    WeightedBackend,
)
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import Workload
from proxy.policy import rows
from proxy.policy.rows import Row

_PAGE_BITS: Final = 12
"""4,096 refs a page: growing one takes 0.1 ms."""
_PROTOCOLS: Final = {protocol.value: protocol for protocol in Protocol}
_MAPS: Final = (rows.SET_SERVICE, rows.SET_WORKLOAD, rows.SET_POD, rows.SET_INBOUND)
_RETRY_ON: Final = {reason.value: reason for reason in RetryOn}


class _Objects:
    """Objects by ref, in pages: one dict of 40,000 takes 2 ms to grow, at an instant that nobody chose."""

    __slots__ = ("pages",)

    def __init__(self) -> None:
        self.pages: dict[int, dict[int, Any]] = {}

    def __getitem__(self, ref: int) -> Any:
        return self.pages[ref >> _PAGE_BITS][ref]

    def __setitem__(self, ref: int, value: object) -> None:
        page = self.pages.get(ref >> _PAGE_BITS)
        if page is None:
            page = self.pages[ref >> _PAGE_BITS] = {}
        page[ref] = value

    def __delitem__(self, ref: int) -> None:
        page = self.pages[ref >> _PAGE_BITS]
        del page[ref]
        if not page:
            del self.pages[ref >> _PAGE_BITS]


class PolicyStaging:
    """Takes rows (proxy.policy.rows) in the order they were sent; `switch` gives the snapshot that they amount to.

    What no row touched is the same object as in the snapshot before, maps included. A snapshot that was given out never
    changes. Rows come from our own supervisor: one that names an unknown ref is a fault of ours and raises KeyError.
    """

    __slots__ = ("_drafts", "_maps", "_objects", "_parts", "_steps")

    def __init__(self) -> None:
        self._objects = _Objects()
        self._parts: dict[int, list[Any]] = {}
        self._maps: dict[int, PagedMap[Any, Any]] = {kind: PagedMap() for kind in _MAPS}
        self._drafts: dict[int, Draft[Any, Any]] = {}
        self._steps: dict[int, Callable[..., None]] = {
            rows.PARTS: self._add_parts,
            rows.PARTS_OF: self._add_parts_of,
            rows.WORKLOAD: self._workload,
            rows.SERVICE_NAME: self._service_name,
            rows.ENDPOINT: self._endpoint,
            rows.BACKEND: self._backend,
            rows.MISSING_BACKEND: self._missing_backend,
            rows.RETRY: self._retry,
            rows.RULE: self._rule,
            rows.SERVICE_PORT: self._service_port,
            rows.INBOUND_PORT: self._inbound_port,
            rows.SET_SERVICE: self._set_service,
            rows.SET_WORKLOAD: self._set_workload,
            rows.SET_POD: self._set_pod,
            rows.SET_INBOUND: self._set_inbound,
            rows.DROP: self._drop,
            rows.ALIAS: self._alias,
        }

    def apply(self, cut: Iterable[Row]) -> None:
        steps = self._steps
        for row in cut:
            steps[row[0]](*row[1:])

    def switch(self, generation: int) -> PolicySnapshot:
        """The staged snapshot, from now on the base of the next one. Without rejections: workers act on none."""
        for kind, draft in self._drafts.items():
            self._maps[kind] = draft.done()
        self._drafts.clear()
        services, workloads, pods, inbound = (self._maps[kind] for kind in _MAPS)
        return PolicySnapshot(generation, services, workloads, pods, inbound, ())

    # ── Objects ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add_parts(self, ref: int, parts: tuple[int, ...]) -> None:
        self._parts.setdefault(ref, []).extend(map(self._objects.__getitem__, parts))

    def _add_parts_of(self, ref: int, other: int, start: int, stop: int) -> None:
        self._parts.setdefault(ref, []).extend(self._objects[other].endpoints[start:stop])

    def _all_parts(self, ref: int, last: tuple[int, ...]) -> tuple[Any, ...]:
        before = self._parts.pop(ref, None)
        if before is None:
            return tuple(map(self._objects.__getitem__, last))
        before.extend(map(self._objects.__getitem__, last))
        return tuple(before)

    def _alias(self, ref: int, other: int) -> None:
        self._objects[ref] = self._objects[other]

    def _workload(self, ref: int, *fields: Any) -> None:
        self._objects[ref] = Workload(*fields)

    def _service_name(self, ref: int, namespace: str, name: str, host: str) -> None:
        self._objects[ref] = ServiceName(namespace, name, host)

    def _endpoint(self, ref: int, host: str, port: int, workload: int) -> None:
        self._objects[ref] = Endpoint(SocketAddress(host, port), self._objects[workload])

    def _backend(self, ref: int, service: int, port: int, subset: str, endpoints: tuple[int, ...]) -> None:
        self._objects[ref] = Backend(self._objects[service], port, subset, self._all_parts(ref, endpoints))

    def _missing_backend(self, ref: int, service: int, port: int, subset: str, reason: str) -> None:
        self._objects[ref] = MissingBackend(self._objects[service], port, subset, reason)

    def _retry(self, ref: int, attempts: int, retry_on: tuple[str, ...], back_off_s: float) -> None:
        self._objects[ref] = RetryPolicy(attempts, frozenset(_RETRY_ON[value] for value in retry_on), back_off_s)

    def _rule(self, ref: int, name: str, retry: int, weights: tuple[int, ...], backends: tuple[int, ...]) -> None:
        parts = self._all_parts(ref, backends)
        weighted = tuple(WeightedBackend(weight, part) for weight, part in zip(weights, parts, strict=True))
        self._objects[ref] = HttpRule(name, weighted, self._objects[retry])

    def _service_port(
        self, ref: int, service: int, port: int, protocol: str, everything: int, refused: str, rules: tuple[int, ...]
    ) -> None:
        known = self._objects
        self._objects[ref] = ServicePort(
            known[service], port, _PROTOCOLS[protocol], known[everything], self._all_parts(ref, rules), refused
        )

    def _inbound_port(self, ref: int, service: int, protocol: str) -> None:
        self._objects[ref] = InboundPort(self._objects[service], _PROTOCOLS[protocol])

    # ── Maps: a draft each, from the first key of one that changes ───────────────────────────────────────────────────

    def _set_service(self, host: str, port: int, ref: int) -> None:
        self._set(rows.SET_SERVICE, SocketAddress(host, port), ref)

    def _set_workload(self, address: str, ref: int) -> None:
        self._set(rows.SET_WORKLOAD, address, ref)

    def _set_pod(self, namespace: str, name: str, ref: int) -> None:
        self._set(rows.SET_POD, (namespace, name), ref)

    def _set_inbound(self, host: str, port: int, ref: int) -> None:
        self._set(rows.SET_INBOUND, SocketAddress(host, port), ref)

    def _set(self, kind: int, key: object, ref: int) -> None:
        draft = self._drafts.get(kind)
        if draft is None:
            draft = self._drafts[kind] = Draft(self._maps[kind])
        if ref:
            draft.put(key, self._objects[ref])
        else:
            draft.drop(key)

    def _drop(self, refs: tuple[int, ...]) -> None:
        for ref in refs:
            del self._objects[ref]
