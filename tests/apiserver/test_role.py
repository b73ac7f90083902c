"""The agent's account as it is installed: enough for all that it reads, and no more."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from agent.kube.resources import Resource
from agent.kube.watch import Pace
from agent.sources.kinds import KINDS
from agent.sources.kubernetes_objects import KubernetesObjects
from tests.apiserver.caller import ANSWER_S, Caller, until
from tests.apiserver.clients import client_of, settled
from tests.apiserver.servers import Server
from tests.kube.manifests.rendered import documents, of_kind

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture(scope="module")
def token(server: Server) -> Iterator[str]:
    """Of an account that is bound to the ClusterRole of the base, as the base binds its own."""
    namespace, name = server.namespace(), "headgate-agent"
    (role,) = (one for one in of_kind(documents("base"), "ClusterRole") if one["metadata"]["name"] == name)
    server.account(namespace, name)
    server.permits(namespace, name, role["rules"])
    given = server.token(namespace, name)
    until(lambda: server.by_token(given).get("/api/v1/pods", limit=1).status == 200, "the role is heeded")
    yield given


def _may(caller: Caller, verb: str, resource: Resource, subresource: str = "") -> bool:
    wanted = {"verb": verb, "group": resource.group, "resource": resource.plural, "subresource": subresource}
    return bool(caller.post(_REVIEWS, {"spec": {"resourceAttributes": wanted}}).body["status"]["allowed"])


def test_every_kind_that_is_watched_may_be(server: Server, token: str) -> None:
    agent = server.by_token(token)
    missing = [f"{verb} {kind}" for kind in KINDS for verb in ("list", "watch") if not _may(agent, verb, kind)]
    assert missing == []


def test_nothing_that_is_watched_may_be_changed_or_made(server: Server, token: str) -> None:
    agent = server.by_token(token)
    assert [f"{verb} {kind}" for kind in KINDS for verb in ("create", "delete") if _may(agent, verb, kind)] == []
    pods = next(kind for kind in KINDS if kind.plural == "pods")
    assert [verb for verb in ("update", "patch", "deletecollection") if _may(agent, verb, pods)] == []
    secrets = Resource("", ("v1",), "Secret", "secrets")
    assert [verb for verb in ("get", "list", "watch", "create") if _may(agent, verb, secrets)] == []


def test_by_that_role_all_kinds_are_listed_whether_the_server_has_them_or_not(server: Server, token: str) -> None:
    async def scenario() -> None:
        pace = Pace(lambda seconds: asyncio.sleep(min(seconds, 0.1)), lambda: 0.0, time.monotonic)
        async with client_of(server.access(token=token)) as client:
            source = KubernetesObjects(client, pace, KINDS, 0.0)
            task = asyncio.create_task(source.watch())
            try:
                async with asyncio.timeout(ANSWER_S):
                    told = await source.changes()
                assert {name.kind for name in told} >= {"Namespace"}
                assert source.problems == ()
                await settled(source._watches)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
