"""Questions to an API server whose answers may be refused, lost, or hostile: then an Unseen says why."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from agent.check.facts import Unseen
from agent.check.shapes import Shapeless, mapping, part
from agent.kube.client import ApiClient
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.printable import printable

_PAGE_ITEMS: Final = "500"
"""As kubectl's --chunk-size."""
_PAGES: Final = 200
"""A hundred thousand objects; more than any cluster is made for (kubernetes.io/docs: large clusters)."""
_STATUS_LIMIT: Final = 4 << 20
"""Of 250 pods, each with a reason and four proofs: 250 KB."""
_TOGETHER: Final = 16
"""Agents asked at a time: each is a connection of the API server to a node."""
AGENT_TIMEOUT_S: Final = 10.0
_NOT_FOUND: Final = 404

Fact = TypeVar("Fact")


async def asked(question: Awaitable[Fact]) -> Fact | Unseen:
    """Raises nothing of an API server's."""
    try:
        return await question
    except (ApiRefused, CannotReach, InvalidAccess) as error:
        return Unseen(printable(str(error), 300))
    except (Shapeless, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return Unseen(f"an answer that is none: {printable(str(error), 100)}")


async def found(client: ApiClient, path: str) -> dict[str, Any] | None:
    """None: it is not there. Raises what the client does, Shapeless."""
    try:
        body = await client.get(path)
    except ApiRefused as error:
        if error.status == _NOT_FOUND:
            return None
        raise
    return mapping(body, path)


async def listed(
    client: ApiClient, path: str, read: Callable[[dict[str, Any]], Fact], selector: str = ""
) -> tuple[Fact, ...]:
    """Each item made small as its page arrives. A kind that is not there counts as none. Raises what the client does,
    Shapeless."""
    items: list[Fact] = []
    parameters = {"limit": _PAGE_ITEMS} | ({"labelSelector": selector} if selector else {})
    for _ in range(_PAGES):
        try:
            page = mapping(await client.get(path, parameters), path)
        except ApiRefused as error:
            if error.status == _NOT_FOUND:
                return ()
            raise
        items += (read(mapping(item, path)) for item in page.get("items") or ())
        more = part(page, "metadata").get("continue")
        if not more:
            return tuple(items)
        parameters = {**parameters, "continue": str(more)}
    raise Shapeless(f"{path}: a list without end")


async def told_by_pod(client: ApiClient, namespace: str, name: str, port: int, path: str) -> Any:
    """JSON of a pod's own HTTP server, through the API server's proxy (pods/proxy). Raises what the client does,
    Shapeless."""
    where = f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy{path}"
    async with client.streaming(where, timeout_s=AGENT_TIMEOUT_S) as content:
        text = await content.read(_STATUS_LIMIT)
        while not content.at_eof() and len(text) < _STATUS_LIMIT:
            text += await content.read(_STATUS_LIMIT - len(text))
    if len(text) >= _STATUS_LIMIT:
        raise Shapeless(f"more than {_STATUS_LIMIT} bytes")
    return json.loads(text)


async def all_of(questions: list[Awaitable[Fact]]) -> list[Fact]:
    """A few at a time, in their order."""
    turn = asyncio.Semaphore(_TOGETHER)

    async def in_turn(question: Awaitable[Fact]) -> Fact:
        async with turn:
            return await question

    return await asyncio.gather(*map(in_turn, questions))
