"""A watch over real HTTP: what it knows while the server lists, streams, forgets, lies, refuses and goes away."""

import asyncio

import pytest

from agent.kube.watch import ABSENT_S, PAGE
from tests.kube.heard import PODS, ROUTES, Naps, named, pods, routes, until, watching
from tests.kube.standin import StandIn
from tests.kube.store import Store


def test_first_a_list_from_the_servers_cache_then_every_change() -> None:
    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        store.create(kept, "default", named("a"))
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, _):
            await until(lambda: watch.complete)
            assert heard.values == {"a": "a"}
            assert server.lists_of("pods")[0]["resourceVersion"] == "0"
            server.apply(kept, named("b"))
            server.apply(kept, named("a", "changed"))
            server.apply(kept, named("c"))
            server.delete(kept, "b")
            await until(lambda: heard.gone == ["b"])
            assert heard.values == {"a": "changed", "c": "a"}
            assert (heard.lists, watch.problem) == (1, "")

    asyncio.run(scenario())


def test_items_of_a_list_get_the_kind_and_version_that_the_list_says_once() -> None:
    async def scenario() -> None:
        store = Store()
        store.create(pods(store), "default", named("a"))
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, _):
            await until(lambda: watch.complete)
            assert (heard.bodies["a"]["apiVersion"], heard.bodies["a"]["kind"]) == ("v1", "Pod")

    asyncio.run(scenario())


def test_a_list_that_is_asked_of_etcd_comes_in_pages_and_counts_as_one() -> None:
    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        for number in range(2 * PAGE + 1):
            store.create(kept, "default", named(f"pod-{number:04d}"))
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, _):
            await until(lambda: watch.complete)
            await server.down()
            store.create(kept, "default", named("late"))
            store.compact()  # the version that the watch has is forgotten
            await server.up()
            await until(lambda: "late" in heard.values)
            assert heard.lists == 2
            assert [("continue" in query, query.get("resourceVersion", "")) for query in server.lists_of("pods")] == [
                (False, "0"),
                (False, ""),
                (True, ""),
                (True, ""),
            ]
            assert len(heard.values) == 2 * PAGE + 2

    asyncio.run(scenario())


def test_a_cut_watch_goes_on_where_it_was_and_misses_nothing() -> None:
    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, _):
            await until(lambda: server.watchers == 1)
            for number in range(5):
                server.apply(kept, named(f"before-{number}"))
                server.cut()  # in the middle of an event
                server.apply(kept, named(f"meanwhile-{number}"))
                await until(lambda number=number: f"meanwhile-{number}" in heard.values)  # type: ignore[misc]
            assert len(heard.values) == 10
            assert heard.lists == 1
            assert watch.complete

    asyncio.run(scenario())


def test_bookmarks_carry_a_quiet_watch_over_the_end_of_history() -> None:
    async def scenario() -> None:
        store = Store()
        quiet, busy = pods(store), routes(store)
        async with StandIn(store).serving() as server, watching(server) as (_, heard, _):
            await until(lambda: server.watchers == 1)
            for number in range(20):
                server.apply(busy, named(f"r{number}"))
            asked = len(server.watches_of("pods"))
            await asyncio.sleep(0.05)  # a bookmark comes after each of them
            store.compact()
            server.cut()
            await until(lambda: len(server.watches_of("pods")) > asked)
            server.apply(quiet, named("new"))
            await until(lambda: "new" in heard.values)
            assert heard.lists == 1, "no version that the bookmark told was too old"

    asyncio.run(scenario())


def test_what_went_away_while_the_server_was_down_is_gone_after_the_next_list() -> None:
    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        for name in ("stays", "goes"):
            store.create(kept, "default", named(name))
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, naps):
            await until(lambda: server.watchers == 1)
            await server.down()
            await until(lambda: len(naps.asked_s) > 3)
            assert heard.values == {"stays": "a", "goes": "a"}, "an hour without a server changes nothing"
            assert "pods: " in watch.problem
            store.delete(kept, "default", "goes")
            store.compact()
            await server.up()
            await until(lambda: heard.values == {"stays": "a"})
            await until(lambda: watch.problem == "")

    asyncio.run(scenario())


def test_the_wait_between_attempts_doubles_up_to_thirty_seconds() -> None:
    async def scenario() -> None:
        store = Store()
        pods(store)
        async with StandIn(store).serving() as server:
            server.faults.refuse["pods"] = 500
            async with watching(server) as (_, _, naps):
                await until(lambda: len(naps.asked_s) >= 8)
                assert naps.asked_s[:8] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]

    asyncio.run(scenario())


def test_a_server_that_asks_for_time_gets_it() -> None:
    async def scenario() -> None:
        store = Store()
        pods(store)
        async with StandIn(store).serving() as server:
            server.faults.refuse["pods"], server.faults.retry_after_s = 429, 17
            async with watching(server) as (watch, _, naps):
                await until(lambda: len(naps.asked_s) >= 2)
                assert naps.asked_s[:2] == [17.0, 17.0]
                server.faults.refuse.clear()
                await until(lambda: watch.complete)

    asyncio.run(scenario())


def test_a_list_older_than_what_was_told_is_not_believed() -> None:
    """A server behind the same address whose cache lags."""

    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        store.create(kept, "default", named("old"))
        lagging = (store.version, list(kept.objects.values()))
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, _):
            await until(lambda: server.watchers == 1)
            server.apply(kept, named("new"))
            await until(lambda: "new" in heard.values)
            server.faults.stale["pods"] = lagging
            watch._must_list = True
            server.cut()
            await until(lambda: heard.lists == 2)
            assert heard.values == {"old": "a", "new": "a"}
            assert server.lists_of("pods")[-1].get("resourceVersion", "") == "", "asked of etcd in the end"

    asyncio.run(scenario())


def test_a_list_after_a_restore_of_etcd_has_lower_versions_and_is_believed() -> None:
    """A watch is not told of the restore (etcd keeps it waiting for the future); a list is."""

    async def scenario() -> None:
        store = Store(first_version=9000)
        store.create(pods(store), "default", named("lost"))
        server = StandIn(store)
        async with server.serving(), watching(server) as (watch, heard, _):
            await until(lambda: heard.values == {"lost": "a"})
            await server.down()
            watch._must_list = True
            server.store = Store(first_version=100)
            server.store.create(pods(server.store), "default", named("restored"))
            await server.up()
            await until(lambda: heard.values == {"restored": "a"})

    asyncio.run(scenario())


def test_a_kind_that_the_server_has_not_counts_as_listed_and_may_come_later() -> None:
    async def scenario() -> None:
        store = Store()
        async with StandIn(store).serving() as server, watching(server, ROUTES) as (watch, heard, naps):
            await until(lambda: watch.complete)
            assert (heard.values, watch.problem) == ({}, "")
            assert naps.asked_s[0] == ABSENT_S
            store.create(routes(store, "v1beta1"), "default", named("canary"))
            await until(lambda: heard.values == {"canary": "a"})
            assert heard.bodies["canary"]["apiVersion"] == "networking.istio.io/v1beta1"

    asyncio.run(scenario())


def test_a_kind_that_is_taken_away_takes_its_objects_along() -> None:
    async def scenario() -> None:
        store = Store()
        store.create(routes(store), "default", named("canary"))
        async with StandIn(store).serving() as server, watching(server, ROUTES) as (_, heard, _):
            await until(lambda: server.watchers == 1)
            del store.resources["networking.istio.io", "virtualservices"]
            server.cut()
            await until(lambda: heard.values == {})

    asyncio.run(scenario())


def test_a_kind_that_is_away_for_a_moment_takes_nothing_along() -> None:
    """A server that has just begun, or one of several that has not heard of the CRD: to believe it would open what an
    AuthorizationPolicy closes."""

    async def scenario() -> None:
        store = Store()
        store.create(routes(store), "default", named("canary"))
        async with StandIn(store).serving() as server, watching(server, ROUTES) as (watch, heard, naps):
            await until(lambda: server.watchers == 1)
            away = store.resources.pop(("networking.istio.io", "virtualservices"))
            server.cut()
            await until(lambda: "has not the kind any more" in watch.problem)
            store.resources["networking.istio.io", "virtualservices"] = away
            await until(lambda: watch.problem == "" and server.watchers == 1)
            assert (heard.values, heard.lists) == ({"canary": "a"}, 2)
            assert naps.now_s < ABSENT_S

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "word"), [(403, "may not list"), (401, "may not list")])
def test_who_may_not_list_says_which_rule_is_missing_and_tries_on(status: int, word: str) -> None:
    async def scenario() -> None:
        store = Store()
        store.create(pods(store), "default", named("a"))
        async with StandIn(store).serving() as server:
            server.faults.refuse["pods"] = status
            async with watching(server) as (watch, heard, _):
                await until(lambda: watch.problem != "")
                assert word in watch.problem
                assert "ClusterRole must permit get, list and watch" in watch.problem
                assert not watch.complete
                server.faults.refuse.clear()
                await until(lambda: heard.values == {"a": "a"})
                assert watch.problem == ""

    asyncio.run(scenario())


_NOWHERE = (
    b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":""}}}\n',
    b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":null}}}\n',
)
"""To ask on from no version would begin anew, and what went meanwhile would stay for ever."""


@pytest.mark.parametrize(
    "garbage", [b"no json\n", b'{"type":"ADDED"}\n', b'{"type":"NEW","object":{}}\n', b"[]\n", *_NOWHERE]
)
def test_what_is_no_event_ends_the_watch_and_nothing_behind_it_is_lost(garbage: bytes) -> None:
    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        async with StandIn(store).serving() as server, watching(server) as (_, heard, _):
            await until(lambda: server.watchers == 1)
            server.faults.garbage = garbage
            server.apply(kept, named("a"))
            await until(lambda: len(server.watches_of("pods")) == 2)
            assert server.watches_of("pods")[-1]["resourceVersion"].isdecimal()
            server.apply(kept, named("b"))
            await until(lambda: heard.values == {"a": "a", "b": "a"})

    asyncio.run(scenario())


def test_a_version_that_the_server_cannot_read_any_more_is_followed_by_a_list() -> None:
    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        store.create(kept, "default", named("a"))
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, _):
            await until(lambda: server.watchers == 1)
            watch._version = watch._list_from = "of-another-server"
            server.cut()
            await until(lambda: heard.lists == 2)
            server.apply(kept, named("b"))
            await until(lambda: heard.values == {"a": "a", "b": "a"})

    asyncio.run(scenario())


def test_an_object_that_nobody_can_read_ends_nothing() -> None:
    """A fault of ours in the taking of one: the watch goes on and says so."""

    async def scenario() -> None:
        store = Store()
        kept = pods(store)
        store.create(kept, "default", {"metadata": {"name": "broken"}, "spec": {}})  # Heard looks for spec.value
        async with StandIn(store).serving() as server, watching(server) as (watch, heard, _):
            await until(lambda: "a fault of the agent: KeyError('value')" in watch.problem)
            server.apply(kept, named("broken"))
            await until(lambda: heard.values == {"broken": "a"})
            await until(lambda: watch.problem == "")

    asyncio.run(scenario())


def test_a_watch_that_is_cut_every_minute_is_asked_for_again_at_once() -> None:
    """By a load balancer between: the wait must not grow by what is no failing of the server's."""

    async def scenario() -> None:
        store = Store()
        pods(store)
        async with StandIn(store).serving() as server, watching(server) as (_, _, naps):
            for cuts in range(1, 5):
                await until(lambda: server.watchers == 1)
                naps.now_s += 60.0
                server.cut()
                await until(lambda cuts=cuts: len(naps.asked_s) == cuts)  # type: ignore[misc]
            assert naps.asked_s == [0.8] * 4

    asyncio.run(scenario())


def test_a_watch_that_is_ended_at_once_is_not_asked_for_in_a_rush() -> None:
    async def scenario() -> None:
        store = Store()
        pods(store)
        naps = Naps()
        async with StandIn(store).serving() as server:
            server.faults.silent = True
            async with watching(server, PODS, naps) as (watch, _, _):
                await until(lambda: server.watchers == 1)
                server.cut()
                await until(lambda: len(naps.asked_s) == 1)
                assert naps.asked_s == [0.8]
                await until(lambda: watch.problem == "" and server.watchers == 1)

    asyncio.run(scenario())
