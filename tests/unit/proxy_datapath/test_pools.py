"""Which upstream is chosen, when it is made, and what becomes of those that policy names no longer."""

import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count

import pytest

from proxy.datapath.destinations import Destination, destination_of
from proxy.datapath.pod import Pod
from proxy.datapath.pools import LOOKED_AT_A_TURN, Pool, PoolSet
from proxy.datapath.stream import Stream
from proxy.datapath.upstream import Upstream
from proxy.model.address import SocketAddress
from proxy.model.direction import Direction
from proxy.model.routing import (
    DEFAULT_RETRY,
    Backend,
    Endpoint,
    HttpRule,
    MissingBackend,
    Protocol,
    ServiceName,
    ServicePort,
    WeightedBackend,
)
from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import NOBODY, Workload
from tests.unit.proxy_datapath.doubles import NO_POLICY, Remembering, served_pod, turn

VIP = SocketAddress("10.96.0.1", 80)
WEB = ServiceName("default", "web", "web.default.svc.cluster.local")
CANARY = ServiceName("default", "canary", "canary.default.svc.cluster.local")
GENERATIONS = count(2)
SEVERAL_TURNS = 5 * LOOKED_AT_A_TURN


@pytest.fixture
def pod() -> Iterator[Pod]:
    with served_pod() as made:
        yield made


def somebody(name: str) -> Workload:
    return Workload("default", name, name, "default", name, "v1", name, "v1", (), ())


def endpoints(number: int, first: int = 0) -> tuple[Endpoint, ...]:
    places = range(first, first + number)
    return tuple(Endpoint(SocketAddress(f"10.78.{place >> 8}.{place & 255}", 8080), NOBODY) for place in places)


def web(*those: Endpoint, subset: str = "") -> Backend:
    return Backend(WEB, 80, subset, those)


def policy(everything: Backend, *routes: Backend | MissingBackend) -> PolicySnapshot:
    """One rule to each route in equal parts, or to everything."""
    weighted = tuple(WeightedBackend(1, backend) for backend in routes or (everything,))
    rule = HttpRule("default", weighted, DEFAULT_RETRY)
    services = {VIP: ServicePort(WEB, 80, Protocol.HTTP, everything, (rule,))}
    return replace(NO_POLICY, generation=next(GENERATIONS), services=services)


def outbound(pod: Pod, snapshot: PolicySnapshot) -> Destination:
    pod.node.policy = snapshot
    return destination_of(pod, Direction.OUTBOUND, VIP, snapshot)


def pool(pod: Pod, *active: int) -> Pool:
    """Each endpoint with so many requests in flight."""
    made = PoolSet(pod).of(web(*endpoints(len(active))))
    for place, in_flight in enumerate(active):
        made.at(place).active = in_flight
    return made


@pytest.fixture
def rest(pod: Pod) -> Iterator[Callable[[Upstream], Stream]]:
    """Gives an upstream an idle connection."""
    with ExitStack() as stack:

        def resting(upstream: Upstream) -> Stream:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            stream = Stream(pod.node.reactor, ours, Remembering())
            stream.start()
            stack.callback(stream.close)
            upstream.give_back(stream, 1000.0)
            return stream

        yield resting


# ── Choosing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def chosen(made: Pool, besides: Upstream | None = None, times: int = 3000) -> list[int]:
    chance = random.Random(7)
    counts = Counter(id(made.choose(chance, besides)) for _ in range(times))
    return [counts[id(made.at(place))] for place in range(len(made.endpoints))]


def test_equally_loaded_endpoints_get_equal_shares(pod: Pod) -> None:
    assert all(900 < count < 1100 for count in chosen(pool(pod, 2, 2, 2)))


def test_the_busiest_of_three_is_never_the_better_of_two(pod: Pod) -> None:
    counts = chosen(pool(pod, 0, 1, 5))
    assert counts[2] == 0
    assert 1850 < counts[0] < 2150, "it wins two of three pairs"


def test_the_endpoint_that_failed_is_avoided_while_there_is_another(pod: Pod) -> None:
    two = pool(pod, 9, 0)
    assert chosen(two, besides=two.at(1), times=50) == [50, 0]
    one = pool(pod, 0)
    assert one.choose(random.Random(1), one.at(0)) is one.at(0)
    assert pool(pod).choose(random.Random(1)) is None


def test_the_others_of_one_that_failed_are_chosen_as_if_it_were_not_there(pod: Pod) -> None:
    four = pool(pod, 0, 2, 2, 2)
    failed, *others = chosen(four, besides=four.at(0))
    assert failed == 0, "idle as it is"
    assert all(900 < count < 1100 for count in others)
    four.at(3).active = 9
    assert chosen(four, besides=four.at(0))[3] == 0, "still the less loaded of two"


def test_one_that_failed_under_the_policy_before_takes_nobodys_place(pod: Pod) -> None:
    gone = pool(pod, 0).at(0)
    assert all(900 < count < 1100 for count in chosen(pool(pod, 1, 1, 1), besides=gone))


def test_an_address_that_is_listed_twice_is_still_called_when_it_failed(pod: Pod) -> None:
    one = endpoints(1)
    twice = PoolSet(pod).of(web(*one, *one))
    assert twice.at(0) is twice.at(1)
    assert twice.choose(random.Random(1), twice.at(0)) is twice.at(0)


def test_a_missing_backend_says_why_and_has_nobody(pod: Pod) -> None:
    missing = PoolSet(pod).of(MissingBackend(WEB, 80, "v9", "no subset v9"))
    assert (missing.missing, missing.name) == ("no subset v9", f"{WEB.host}:80 subset v9")
    assert missing.choose(random.Random(1)) is None


# ── Made when it is chosen ──────────────────────────────────────────────────────────────────────────────────────────


def test_upstreams_are_made_when_they_are_chosen(pod: Pod) -> None:
    made = outbound(pod, policy(web(*endpoints(20_000))))
    assert list(made.upstreams()) == []
    first = made.rules[0].next_pool().choose(random.Random(1))
    assert first is not None and first in list(made.upstreams())
    assert len(list(made.upstreams())) == 2, "the two that were compared"


def test_rules_and_opaque_connections_that_go_to_the_same_endpoints_share_upstreams(pod: Pod) -> None:
    all_of_them = endpoints(4)
    everything, v1, v2 = web(*all_of_them), web(*all_of_them[:2], subset="v1"), web(*all_of_them[2:], subset="v2")
    made = outbound(pod, policy(everything, v1, v2))
    one, other = made.rules[0].pools
    assert [one.at(0), one.at(1), other.at(0), other.at(1)] == [made.opaque.at(place) for place in range(4)]
    assert outbound(pod, policy(everything)).rules[0].pools[0].at(3) is other.at(1), "and go on when the route goes"


def test_an_endpoint_of_two_services_is_called_as_the_one_that_the_route_names(pod: Pod) -> None:
    everything = web(*endpoints(2))
    canary = Backend(CANARY, 80, "", everything.endpoints[:1])
    made = outbound(pod, policy(everything, everything, canary))
    assert [made.rules[0].pools[number].at(0).service for number in (0, 1)] == [WEB, CANARY]
    assert [made.rules[0].pools[number].at(0).service for number in (1, 0)] == [CANARY, WEB]


# ── Another policy ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_idle_connections_go_on_under_another_policy_while_their_endpoint_is_the_same(
    pod: Pod, rest: Callable[[Upstream], Stream]
) -> None:
    both = endpoints(2)
    before = outbound(pod, policy(web(*both))).opaque
    goes, stays = rest(before.at(0)), rest(before.at(1))
    after = outbound(pod, policy(web(both[1], *endpoints(1, 7)))).opaque
    assert after.at(0).idle == [stays]
    assert goes.fd < 0, "nobody keeps a connection to what has gone"
    assert pod.idle_connections == 1


def test_an_address_that_changes_hands_is_another_upstream(pod: Pod, rest: Callable[[Upstream], Stream]) -> None:
    (place,) = endpoints(1)
    before = outbound(pod, policy(web(place))).opaque.at(0)
    idle = rest(before)
    newcomer = Endpoint(place.address, somebody("new"))
    after = outbound(pod, policy(web(newcomer))).opaque.at(0)
    assert (before.retired, after.retired, after.workload) == (True, False, newcomer.workload)
    assert idle.fd < 0 and after.idle == []


def test_a_virtual_address_that_nobody_owns_any_more_leaves_no_upstream_behind(pod: Pod) -> None:
    owned = outbound(pod, policy(web(*endpoints(3))))
    before = [owned.opaque.at(place) for place in range(3)]
    lone = outbound(pod, replace(NO_POLICY, generation=next(GENERATIONS)))
    assert all(upstream.retired for upstream in before)
    assert lone.opaque.at(0).address == VIP
    assert list(lone.upstreams()) == [lone.opaque.at(0)]


def test_a_request_that_began_under_the_policy_before_leaves_no_connection_behind(
    pod: Pod, rest: Callable[[Upstream], Stream]
) -> None:
    """Its second try may go to an endpoint that is called for the first time then, and is named by no policy now."""
    before = outbound(pod, policy(web(*endpoints(2)))).opaque
    after = outbound(pod, policy(web(*endpoints(2, 7))))
    late = before.at(1)
    assert rest(late).fd < 0
    assert late not in list(after.upstreams())


def test_a_pod_that_leaves_keeps_nothing(pod: Pod, rest: Callable[[Upstream], Stream]) -> None:
    made = outbound(pod, policy(web(*endpoints(2))))
    idle = rest(made.opaque.at(0))
    made.retire()
    assert idle.fd < 0
    assert rest(made.opaque.at(1)).fd < 0
    assert pod.idle_connections == 0


# ── Many endpoints ──────────────────────────────────────────────────────────────────────────────────────────────────


def many(pod: Pod, rest: Callable[[Upstream], Stream], those: tuple[Endpoint, ...]) -> tuple[Stream, Upstream]:
    """A policy with those endpoints: an idle connection to the last, and the upstream of the one before."""
    made = outbound(pod, policy(web(*those))).opaque
    return rest(made.at(len(those) - 1)), made.at(len(those) - 2)


def test_of_many_endpoints_those_that_went_are_found_within_a_few_turns(
    pod: Pod, rest: Callable[[Upstream], Stream]
) -> None:
    those = endpoints(SEVERAL_TURNS)
    goes, stays = many(pod, rest, those)
    after = outbound(pod, policy(web(*those[:-1])))
    assert goes.fd >= 0, "not all at once: a turn of the loop looks at a part of them"
    turn(pod.node.reactor)
    assert goes.fd < 0
    assert not stays.retired and after.opaque.at(SEVERAL_TURNS - 2) is stays
    assert list(after.upstreams()) == [stays]


def test_what_comes_back_while_it_is_looked_for_is_not_retired(pod: Pod, rest: Callable[[Upstream], Stream]) -> None:
    those = endpoints(SEVERAL_TURNS)
    returns, _ = many(pod, rest, those)
    outbound(pod, policy(web(*those[:-1])))
    again = outbound(pod, policy(web(*those))).opaque
    turn(pod.node.reactor)
    assert again.at(SEVERAL_TURNS - 1).idle == [returns]
    assert returns.fd >= 0


def test_what_went_before_the_last_policy_is_found_by_its_search(pod: Pod, rest: Callable[[Upstream], Stream]) -> None:
    those = endpoints(SEVERAL_TURNS)
    goes, stays = many(pod, rest, those)
    outbound(pod, policy(web(*those[:-1])))
    outbound(pod, policy(web(*those[1:-1])))
    turn(pod.node.reactor)
    assert goes.fd < 0 and not stays.retired


def test_thousands_that_went_are_retired_a_part_in_each_turn(pod: Pod) -> None:
    those = endpoints(SEVERAL_TURNS)
    before = outbound(pod, policy(web(*those))).opaque
    upstreams = [before.at(place) for place in range(SEVERAL_TURNS)]
    after = outbound(pod, policy(web(*endpoints(1, SEVERAL_TURNS))))
    now = sum(upstream.retired for upstream in upstreams)
    assert 0 < now <= LOOKED_AT_A_TURN
    turn(pod.node.reactor)
    assert all(upstream.retired for upstream in upstreams)
    assert list(after.upstreams()) == []
