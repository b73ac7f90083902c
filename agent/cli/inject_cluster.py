"""What a cluster says of itself that a manifest does not: its version, its namespaces' pod security."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from agent.inject.edits import part
from agent.inject.pod_security import ENFORCED
from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.printable import printable

_PATIENCE_S: Final = 10.0
"""In all: who waits for it wants a manifest."""
_NUMBER: Final = re.compile(r"[0-9]{1,3}")
_NOT_FOUND: Final = 404


@dataclass(slots=True)
class Told:
    """`problems`: what could not be asked, and why, in words; the rest holds."""

    version: tuple[int, int] | None = None
    levels: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def ask(access: Access, namespaces: Sequence[str]) -> Told:
    """A namespace that is not there yet has no level."""
    return asyncio.run(_ask(access, namespaces))


async def _ask(access: Access, namespaces: Sequence[str]) -> Told:
    told = Told()
    client = ApiClient(access, time.monotonic, time.time)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            told.version = _version(await client.get("/version"))
            for name in namespaces:
                await _ask_level(client, name, told)
    except (CannotReach, ApiRefused, InvalidAccess) as error:
        told.problems.append(f"the cluster does not tell its version or pod security: {printable(str(error), 300)}")
    except TimeoutError:
        told.problems.append(f"the cluster did not answer within {_PATIENCE_S:g} s")
    finally:
        await client.close()
    return told


async def _ask_level(client: ApiClient, name: str, told: Told) -> None:
    try:
        body = await client.get(f"/api/v1/namespaces/{quote(name, safe='')}")
    except ApiRefused as error:
        if error.status != _NOT_FOUND:
            told.problems.append(f"namespace {printable(name, 63)} cannot be read: {printable(str(error), 300)}")
        return
    level = part(body, "metadata", "labels", ENFORCED) if isinstance(body, dict) else None
    told.levels[name] = level if isinstance(level, str) else ""


def _version(body: Any) -> tuple[int, int] | None:
    """`minor` has a + at its end where a cloud has changed something."""
    if not isinstance(body, dict):
        return None
    found = [_NUMBER.match(str(body.get(key))) for key in ("major", "minor")]
    major, minor = (int(one.group()) if one else None for one in found)
    return None if major is None or minor is None else (major, minor)
