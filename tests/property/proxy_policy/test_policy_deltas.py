"""Policy as workers hear it: slices of rows amount to the supervisor's snapshot, and what did not change stays the same
object, so that nothing that was built upon it is built again."""

import pickle
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model.address import SocketAddress
from proxy.model.routing import Backend, Endpoint, Protocol, ServicePort
from proxy.model.snapshot import PolicySnapshot
from proxy.policy import rows
from proxy.policy.refs import NOTHING, RefTable
from proxy.policy.rows import COST_A_SLICE, PARTS_A_ROW, Row, cost, slices
from proxy.policy.staging import PolicyStaging
from tests.property.proxy_policy.snapshots import World, service_name, unchanged, workload

MANY = 20_000


class Hearer:
    """A worker as far as policy goes: at a base, and there by rows alone."""

    def __init__(self) -> None:
        self.staging = PolicyStaging()
        self.base = NOTHING
        self.snapshot = self.staging.switch(0)

    def catch_up(self, names: RefTable) -> list[tuple[Row, ...]]:
        cuts = list(slices(names.rows_from(self.base)))
        for cut in cuts:
            self.staging.apply(pickle.loads(pickle.dumps(cut)))
        self.base = names.newest
        self.snapshot = self.staging.switch(names.newest.generation)
        return cuts


def objects_of(snapshot: PolicySnapshot) -> Iterator[tuple[object, object]]:
    """Places deep inside, each with the object there."""
    for key, port in snapshot.services.items():
        for where, backend in [
            ("all", port.all_endpoints),
            *(((r, w), one.backend) for r, rule in enumerate(port.rules) for w, one in enumerate(rule.backends)),
        ]:
            yield (key, where), backend
            if isinstance(backend, Backend):
                for index, endpoint in enumerate(backend.endpoints):
                    yield (key, where, index), endpoint
                    yield (key, where, index, "workload"), endpoint.workload


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.booleans(), min_size=1, max_size=12))
def test_any_sequence_of_snapshots_arrives_whole_and_shares_what_it_shared(chance: Random, hears: list[bool]) -> None:
    """One hearer hears of every generation, another misses some, a third begins at each."""
    world, names = World(chance), RefTable()
    always, sometimes = Hearer(), Hearer()
    for heard in hears:
        names.advance(world.next())
        names.forget_before(min(always.base.generation, sometimes.base.generation))
        for hearer in (always, sometimes, Hearer()) if heard else (always, Hearer()):
            before_there, before_here = hearer.base, hearer.snapshot
            hearer.catch_up(names)
            assert hearer.snapshot == names.newest
            for name, key in unchanged(before_there, names.newest):
                assert getattr(hearer.snapshot, name)[key] is getattr(before_here, name)[key], (name, key)
            same: dict[int, int] = {}
            here = dict(objects_of(hearer.snapshot))
            for place, value in objects_of(names.newest):
                assert same.setdefault(id(value), id(here[place])) == id(here[place]), "one object there is one here"


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_nothing_is_kept_of_what_is_gone(chance: Random) -> None:
    world, names, hearer = World(chance), RefTable(), Hearer()
    for _ in range(8):
        names.advance(world.next())
        hearer.catch_up(names)
    names.advance(PolicySnapshot(names.newest.generation + 1, {}, {}, {}, {}, ()))
    hearer.catch_up(names)
    names.forget_before(names.newest.generation)
    assert hearer.staging._objects.pages == {}
    assert hearer.staging._parts == {}
    assert names._named == {}
    assert names._gone == []


def wide(endpoints: tuple[Endpoint, ...], generation: int) -> PolicySnapshot:
    port = ServicePort(service_name("web"), 80, Protocol.HTTP, Backend(service_name("web"), 80, "", endpoints), ())
    return PolicySnapshot(generation, {SocketAddress("10.96.0.1", 80): port}, {}, {}, {}, ())


def twenty_thousand() -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(SocketAddress(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80), workload(str(n), labels=10))
        for n in range(MANY)
    )


def test_a_service_of_20000_endpoints_comes_in_slices_of_bounded_work() -> None:
    names, hearer = RefTable(), Hearer()
    names.advance(wide(twenty_thousand(), 1))
    cuts = hearer.catch_up(names)
    assert hearer.snapshot == names.newest
    assert all(sum(map(cost, cut)) <= COST_A_SLICE for cut in cuts)
    assert max(len(field) for cut in cuts for row in cut for field in row if type(field) is tuple) <= PARTS_A_ROW
    assert max(len(pickle.dumps(cut)) for cut in cuts) <= 64 * 1024, "a slice is one packet of the link"


@pytest.mark.parametrize("place", [0, 1, MANY // 2, MANY - 1])
def test_one_endpoint_of_20000_that_changes_is_told_in_a_few_rows(place: int) -> None:
    before = twenty_thousand()
    changed = Endpoint(SocketAddress("10.9.9.9", 80), before[place].workload)
    names, hearer = RefTable(), Hearer()
    names.advance(wide(before, 1))
    hearer.catch_up(names)
    old = hearer.snapshot.services[SocketAddress("10.96.0.1", 80)].all_endpoints
    for after in (
        (*before[:place], changed, *before[place + 1 :]),
        (*before[:place], *before[place + 1 :]),
        (*before[:place], changed, *before[place:]),
    ):
        names.advance(wide(after, names.newest.generation + 1))
        cuts = hearer.catch_up(names)
        assert hearer.snapshot == names.newest
        assert sum(map(len, cuts)) < 20
        now = hearer.snapshot.services[SocketAddress("10.96.0.1", 80)].all_endpoints
        kept = {id(endpoint) for endpoint in old.endpoints}
        assert sum(id(endpoint) not in kept for endpoint in now.endpoints) <= 2, "the one that came, or came back"


def test_a_map_that_did_not_change_is_the_same_map_and_others_are_cut_apart() -> None:
    first = wide(twenty_thousand()[:3], 1)
    owner = first.services[SocketAddress("10.96.0.1", 80)].all_endpoints.endpoints[0].workload
    names, hearer = RefTable(), Hearer()
    names.advance(first)
    hearer.catch_up(names)
    services = hearer.snapshot.services
    names.advance(PolicySnapshot(2, first.services, {"10.1.0.0": owner}, {("default", "0"): owner}, {}, ()))
    cuts = hearer.catch_up(names)
    assert hearer.snapshot.services is services
    assert [{row[0] for row in cut} for cut in cuts] == [{rows.SET_WORKLOAD}, {rows.SET_POD}]
