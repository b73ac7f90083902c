"""What the client of the API server writes, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.kube.access import Access
from agent.kube.client import JSON_PATCH, ApiClient
from agent.kube.errors import ApiRefused, CannotReach
from agent.telling.settling import SettlingClient
from tests.kube.beside import serves_all
from tests.kube.heard import until
from tests.kube.standin import StandIn
from tests.kube.store import Store

MAPS = "/api/v1/namespaces/default/configmaps"


def _on(story: Callable[[ApiClient, StandIn], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = Store()
        store.create(serves_all(store)["Namespace"], "", {"metadata": {"name": "default"}})
        async with StandIn(store).serving() as server:
            client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
            try:
                await story(client, server)
            finally:
                await client.close()

    asyncio.run(whole())


def _status(refused: pytest.ExceptionInfo[ApiRefused]) -> tuple[int, str]:
    return refused.value.status, refused.value.reason


def test_an_object_is_made_changed_and_deleted() -> None:
    async def story(client: ApiClient, _: StandIn) -> None:
        made = await client.create(MAPS, {"metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}})
        changed = await client.patch(f"{MAPS}/a", {"data": {"x": None, "z": "3"}})
        assert changed["data"] == {"y": "2", "z": "3"}
        changed = await client.patch(f"{MAPS}/a", [{"op": "replace", "path": "/data/y", "value": "5"}], JSON_PATCH)
        assert changed["data"] == {"y": "5", "z": "3"}
        changed["data"] = {}
        await client.update(f"{MAPS}/a", changed)
        assert (await client.get(f"{MAPS}/a")).get("data") == {}
        await client.delete(f"{MAPS}/a", {"preconditions": {"uid": made["metadata"]["uid"]}})
        with pytest.raises(ApiRefused) as gone:
            await client.get(f"{MAPS}/a")
        assert _status(gone) == (404, "NotFound")

    _on(story)


def test_conditions_that_do_not_hold_are_the_servers_word() -> None:
    async def story(client: ApiClient, _: StandIn) -> None:
        made = await client.create(MAPS, {"metadata": {"name": "a"}})
        with pytest.raises(ApiRefused) as twice:
            await client.create(MAPS, {"metadata": {"name": "a"}})
        assert _status(twice) == (409, "AlreadyExists")
        await client.patch(f"{MAPS}/a", {"data": {"x": "1"}})
        with pytest.raises(ApiRefused) as stale:
            await client.update(f"{MAPS}/a", made)
        assert _status(stale) == (409, "Conflict")
        with pytest.raises(ApiRefused) as stale:
            await client.patch(f"{MAPS}/a", {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}})
        assert _status(stale) == (409, "Conflict")
        with pytest.raises(ApiRefused) as other:
            await client.delete(f"{MAPS}/a", {"preconditions": {"uid": "another"}})
        assert _status(other) == (409, "Conflict")

    _on(story)


def test_a_server_that_is_away_may_be_asked_again() -> None:
    async def story(client: ApiClient, server: StandIn) -> None:
        await server.down()
        with pytest.raises(CannotReach):
            await client.create(MAPS, {"metadata": {"name": "a"}})

    _on(story)


def test_what_was_sent_goes_to_its_end_when_who_asked_is_cancelled() -> None:
    """Else who leaves for good might take away what is written after it."""

    async def story(client: ApiClient, server: StandIn) -> None:
        settling = SettlingClient(client)
        server.faults.slow_s = 0.2
        asking = asyncio.create_task(settling.create(MAPS, {"metadata": {"name": "a"}}))
        await until(lambda: bool(server.asked))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await settling.settled()
        assert (await settling.get(f"{MAPS}/a"))["metadata"]["name"] == "a"
        server.faults.slow_s = 30
        late = asyncio.create_task(settling.patch(f"{MAPS}/a", {}))
        await until(lambda: server.asked[-1][0] == "PATCH")
        late.cancel()
        await settling.close()
        assert late.cancelled() or (await asyncio.gather(late, return_exceptions=True))

    _on(story)
