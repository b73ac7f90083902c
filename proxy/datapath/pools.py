"""The upstreams behind an outbound destination, and which of them a request or connection gets.

A Service may have 20,000 endpoints, and a pod call a few of them: an upstream is made when it is chosen for the first
time (all at once took 20 ms), and those that policy no longer names are looked for a piece in each turn of the loop.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from proxy.datapath.pod import Pod
from proxy.datapath.upstream import Upstream
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.routing import Backend, Endpoint, MissingBackend, ServiceName
from proxy.policy.balance import less_loaded

LOOKED_AT_A_TURN: Final = 2048
"""Endpoints that are looked at in one go for upstreams to retire: 0.2 ms."""
_A_STEP: Final = 256


class Pool:
    """The endpoints of one backend as a pod reaches them; `missing` says why there is none and can be none."""

    __slots__ = ("_made", "_pools", "_upstreams", "backend", "endpoints", "missing")

    def __init__(
        self, pools: "PoolSet", backend: Backend | MissingBackend, made: dict[SocketAddress, Upstream]
    ) -> None:
        """`made`: the Service's, of all its pools."""
        self._pools = pools
        self._made = made
        self.backend = backend
        self.endpoints: tuple[Endpoint, ...] = ()
        self.missing = ""
        if isinstance(backend, MissingBackend):
            self.missing = backend.reason
        else:
            self.endpoints = backend.endpoints
        self._upstreams: list[Upstream | None] = [None] * len(self.endpoints)

    @property
    def name(self) -> str:
        backend = self.backend
        return f"{backend.service.host}:{backend.port}" + (f" subset {backend.subset}" if backend.subset else "")

    def choose(self, chance: Random, besides: Upstream | None = None) -> Upstream | None:
        """The less loaded of two (LEAST_REQUEST); `besides` is avoided if there is another. None: no endpoint."""
        upstreams = self._upstreams
        number = len(upstreams)
        if number <= 1:
            return self.at(0) if number else None
        if besides is not None:
            return self._choose_another(chance, besides)
        first = int(chance.random() * number)
        second = int(chance.random() * (number - 1))
        if second >= first:
            second += 1
        one = upstreams[first] or self._take_up(first)
        other = upstreams[second] or self._take_up(second)
        return one if less_loaded(one.active, other.active) else other

    def at(self, index: int) -> Upstream:
        """Of the endpoint at this place."""
        return self._upstreams[index] or self._take_up(index)

    def _choose_another(self, chance: Random, besides: Upstream) -> Upstream:
        # The first two of a shuffled whole without `besides` are two of the others by chance.
        number = len(self._upstreams)
        drawn = map(self.at, chance.sample(range(number), min(3, number)))
        others = [upstream for upstream in drawn if upstream is not besides]
        if len(others) < 2:
            return others[0] if others else besides
        return others[0] if less_loaded(others[0].active, others[1].active) else others[1]

    def _take_up(self, index: int) -> Upstream:
        """What another pool of the Service, or the policy before, has of the endpoint; else a new upstream."""
        endpoint = self.endpoints[index]
        address, workload = endpoint.address, endpoint.workload
        found = self._made.get(address)
        if found is None or found.workload is not workload:
            earlier, pod = found, self._pools.pod
            found = Upstream(pod, Direction.OUTBOUND, address, self.backend.service, pod.workload, workload)
            if self._pools.former:
                found.retired = True  # for one last request under the former policy
            else:
                if earlier is not None:  # somebody else is there now; or two EndpointSlices disagree about who is
                    earlier.retire()
                self._made[address] = found
        self._upstreams[index] = found
        return found


@dataclass(slots=True, eq=False)
class PoolSet:
    """The pools of a destination under one policy. `made` are the upstreams, by Service (which their series name) and
    endpoint; it goes on to the next policy's set, with their idle connections and counts. `former`: there is such a
    next one, or the pod has left."""

    pod: Pod
    made: dict[ServiceName, dict[SocketAddress, Upstream]] = field(default_factory=dict)
    former: bool = False
    _pools: dict[int, Pool] = field(default_factory=dict)
    _search: Iterator[int] | None = None

    def of(self, backend: Backend | MissingBackend) -> Pool:
        """Rules that name the same backend share its pool."""
        found = self._pools.get(id(backend))
        if found is None:
            found = self._pools[id(backend)] = Pool(self, backend, self.made.setdefault(backend.service, {}))
        return found

    def upstreams(self) -> Iterator[Upstream]:
        """All that were chosen so far and are not retired."""
        for made in self.made.values():
            yield from made.values()

    def end(self) -> None:
        """What is chosen from now on, for requests that began before, is not kept."""
        self.former = True
        self._search = None

    def replace(self, earlier: "PoolSet") -> None:
        """Call when all pools are made: idle connections to endpoints that none of them holds are closed, of few
        endpoints at once, of many in the next turns of the loop; busy ones end with their request."""
        earlier.end()
        self._search = self._retire_dropped()
        self._go_on()

    def _go_on(self) -> None:
        left = LOOKED_AT_A_TURN
        for looked_at in self._search or ():
            left -= looked_at
            if left <= 0:
                self.pod.node.reactor.call_later(0.0, self._go_on)
                return
        self._search = None

    def _retire_dropped(self) -> Iterator[int]:
        """Yields how many endpoints it has looked at since it yielded last. If it is not carried on, nothing is lost:
        the next policy's search begins with all that was made."""
        for service, made in tuple(self.made.items()):
            dropped = made.copy()
            pools = [pool for pool in self._pools.values() if pool.backend.service == service]
            for pool in pools:
                yield from _strike_out(pool.endpoints, dropped)
            yield from _retire(dropped, made)
            if not pools:
                del self.made[service]


def _strike_out(endpoints: tuple[Endpoint, ...], upstreams: dict[SocketAddress, Upstream]) -> Iterator[int]:
    for start in range(0, len(endpoints), _A_STEP):
        some = endpoints[start : start + _A_STEP]
        for endpoint in some:
            upstream = upstreams.get(endpoint.address)
            if upstream is not None and upstream.workload is endpoint.workload:
                del upstreams[endpoint.address]
        yield len(some)


def _retire(dropped: dict[SocketAddress, Upstream], made: dict[SocketAddress, Upstream]) -> Iterator[int]:
    for number, (address, upstream) in enumerate(dropped.items(), 1):
        if made.get(address) is upstream:  # or what a request has put in its place meanwhile
            del made[address]
        upstream.retire()
        if number % _A_STEP == 0:
            yield _A_STEP
