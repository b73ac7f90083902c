"""`headgate check` and an API server: what it asks is understood; what is forbidden is told in the server's words."""

import asyncio
import time

from agent.check.after import after
from agent.check.before import before
from agent.check.gather import Gathering
from agent.check.lines import Level, Line
from agent.check.needs import needs_of
from agent.kube.access import Access
from agent.kube.client import ApiClient
from tests.apiserver.caller import until
from tests.apiserver.servers import Server
from tests.kube.manifests.rendered import documents

_OURS = "headgate-check"
"""A namespace that no other test has: nothing is installed in it."""


def _checked(access: Access, *, pre: bool) -> dict[str, Line]:
    async def whole() -> tuple[Line, ...]:
        client = ApiClient(access, time.monotonic, time.time)
        try:
            gathering = Gathering(client, _OURS, "0.1.0", time.time())
            if pre:
                return before(await gathering.before(needs_of([*documents("base"), *documents("webhook")])))
            return after(await gathering.after())
        finally:
            await client.close()

    return {line.id: line for line in asyncio.run(whole())}


def test_an_administrator_may_install(server: Server) -> None:
    namespace = server.namespace()
    server.account(namespace, "chief")
    server.permits(namespace, "chief", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                                        {"nonResourceURLs": ["*"], "verbs": ["*"]}])  # fmt: skip
    access = server.access(token=server.token(namespace, "chief"))
    until(lambda: _checked(access, pre=True)["permissions"].level is Level.OK, "the server heeds the new role")
    found = _checked(access, pre=True)
    assert found["api-version"].level is Level.OK
    assert found["policy-kinds"].what.startswith("definitions there: ")
    unseen = [line for line in found.values() if "could not be looked at" in line.why]
    assert unseen == []


def test_somebody_without_rights_may_not_and_reads_why(server: Server) -> None:
    namespace = server.namespace()
    server.account(namespace, "guest")
    access = server.access(token=server.token(namespace, "guest"))
    found = _checked(access, pre=True)
    assert found["permissions"].level is Level.FAILED
    assert "you may not " in found["permissions"].why
    assert found["nodes"].level is Level.WARNING
    assert 'cannot list resource "nodes"' in found["nodes"].why


def test_where_nothing_is_installed_that_is_said(server: Server) -> None:
    namespace = server.namespace()
    server.account(namespace, "reader")
    server.permits(namespace, "reader", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}])
    access = server.access(token=server.token(namespace, "reader"))
    until(lambda: _checked(access, pre=False)["headgate-agent"].level is Level.FAILED, "the server heeds the new role")
    found = _checked(access, pre=False)
    assert f"there is no DaemonSet {_OURS}/headgate-agent" in found["headgate-agent"].why
    assert [line for line in found.values() if "could not be looked at" in line.why] == []
