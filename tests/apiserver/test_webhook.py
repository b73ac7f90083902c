"""`headgate webhook` and an API server: by its own account, its own certificates, and the rules that are installed."""

import asyncio
import copy
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.inject.template import INIT, PROXY, Template
from agent.kube.client import ApiClient
from agent.webhook import injecting
from agent.webhook.keeper import Names
from agent.webhook.service import WebhookSettings, run
from tests.apiserver.caller import free_port, until
from tests.apiserver.servers import Server
from tests.kube.manifests.rendered import documents

_OURS = "headgate-system"
_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_HOST = "localhost"
_PATHS = {
    "ServiceAccount": f"/api/v1/namespaces/{_OURS}/serviceaccounts",
    "Secret": f"/api/v1/namespaces/{_OURS}/secrets",
    "Role": f"{_RBAC}/namespaces/{_OURS}/roles",
    "RoleBinding": f"{_RBAC}/namespaces/{_OURS}/rolebindings",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
    "MutatingWebhookConfiguration": _CONFIGURATIONS,
}
"""What of the installation the webhook itself needs; pods run nowhere here."""


@pytest.fixture
def webhook(server: Server) -> Iterator["Installed"]:
    """Installed, running and believed; all of it is gone afterwards."""
    port = free_port()
    server.admin.post("/api/v1/namespaces", {"metadata": {"name": _OURS}})  # another test may have made it
    bodies = [body for body in documents("webhook") if body["kind"] in _PATHS]
    try:
        for body in bodies:
            server.admin.made(_PATHS[body["kind"]], _at(port, body))
        with _running(server, port) as stopped:
            until(lambda: _believed(server), "the webhook tells the API server whom to believe")
            yield Installed(server, stopped)
    finally:
        for body in reversed(bodies):
            server.admin.delete(f"{_PATHS[body['kind']]}/{body['metadata']['name']}")


class Installed:
    def __init__(self, server: Server, stopped: threading.Event) -> None:
        self.server = server
        self._stopped = stopped

    def pods(self, labels: dict[str, str] | None = None) -> str:
        """Where those of a new namespace are."""
        return f"/api/v1/namespaces/{self.server.namespace(labels)}/pods"

    def end(self) -> None:
        self._stopped.set()


def _at(port: int, body: dict[str, Any]) -> dict[str, Any]:
    """The webhook is no pod here: called by a URL instead of its Service."""
    changed = copy.deepcopy(body)
    for one in changed.get("webhooks", ()):
        one["clientConfig"] = {"url": f"https://{_HOST}:{port}/mutate"}
    return changed


@contextmanager
def _running(server: Server, port: int) -> Iterator[threading.Event]:
    """On a thread of its own; ends with the event."""
    token = server.token(_OURS, "headgate-webhook")
    names = Names(_OURS, "headgate-webhook", "headgate-webhook", _HOST)
    settings = WebhookSettings(server.access(token=token), names, port, 0, ("127.0.0.1",), linger_s=0.0)
    ended = threading.Event()

    async def whole() -> None:
        stopping, client = asyncio.Event(), ApiClient(settings.access, time.monotonic, time.time)
        task = asyncio.create_task(run(settings, client, injecting.by(Template()), stopping))
        try:
            await asyncio.get_running_loop().run_in_executor(None, ended.wait)
            stopping.set()
            await task
        finally:
            await client.close()

    thread = threading.Thread(target=lambda: asyncio.run(whole()), name="webhook")
    thread.start()
    try:
        yield ended
    finally:
        ended.set()
        thread.join()


def _believed(server: Server) -> bool:
    webhooks = server.admin.get(f"{_CONFIGURATIONS}/headgate-webhook").body["webhooks"]
    return all(one["clientConfig"].get("caBundle") for one in webhooks)


def _pod(name: str, labels: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    containers = [{"name": "web", "image": "web:1", **container}]
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"containers": containers}}


def _names(pod: dict[str, Any]) -> list[str]:
    return [one["name"] for one in pod["spec"].get("initContainers") or ()]


def test_labelled_pods_are_made_with_a_sidecar(server: Server, webhook: Installed) -> None:
    """The server hears of a bundle a moment after it was written."""
    labelled, bare = webhook.pods({"headgate.io/inject": "enabled"}), webhook.pods()
    until(lambda: server.admin.post(labelled, _pod("first")).status == 201, "the API server believes the webhook")
    made = server.admin.get(f"{labelled}/first").body
    assert _names(made) == [INIT, PROXY]
    assert "headgate.io/injected" in made["metadata"]["annotations"]
    assert _names(server.admin.made(bare, _pod("web"))) == []
    assert _names(server.admin.made(bare, _pod("asked", {"headgate.io/inject": "enabled"}))) == [INIT, PROXY]
    assert _names(server.admin.made(labelled, _pod("out", {"headgate.io/inject": "disabled"}))) == []
    dry = server.admin.post(labelled, _pod("dry"), dryRun="All")
    assert (dry.status, _names(dry.body)) == (201, [INIT, PROXY])


def test_who_cannot_have_one_is_refused_and_reads_why(server: Server, webhook: Installed) -> None:
    pods = webhook.pods({"headgate.io/inject": "enabled"})
    until(lambda: server.admin.post(pods, _pod("first")).status == 201, "the API server believes the webhook")
    answer = server.admin.post(pods, _pod("taken", ports=[{"containerPort": 15001}]))
    assert answer.status == 422
    assert "give it another port" in answer.message


def test_without_it_nothing_labelled_is_made_until_the_configuration_is_gone(
    server: Server, webhook: Installed
) -> None:
    labelled, bare = webhook.pods({"headgate.io/inject": "enabled"}), webhook.pods()
    until(lambda: server.admin.post(labelled, _pod("first")).status == 201, "the API server believes the webhook")
    webhook.end()
    until(lambda: server.admin.post(labelled, _pod("later"), dryRun="All").status == 500, "the webhook is gone")
    answer = server.admin.post(labelled, _pod("later"))
    assert "failed calling webhook" in answer.message
    server.admin.made(bare, _pod("web"))
    server.admin.delete(f"{_CONFIGURATIONS}/headgate-webhook")
    until(lambda: server.admin.post(labelled, _pod("later")).status == 201, "nobody is asked any more")


def test_its_account_may_touch_its_own_objects_alone(server: Server, webhook: Installed) -> None:
    token = server.token(_OURS, "headgate-webhook")
    caller = server.by_token(token)
    assert caller.get(f"{_PATHS['Secret']}/headgate-webhook").status == 200
    for path in (_PATHS["Secret"], f"{_PATHS['Secret']}/other", _CONFIGURATIONS, f"{_CONFIGURATIONS}/other"):
        assert caller.get(path).status == 403, path
    assert caller.delete(f"{_CONFIGURATIONS}/headgate-webhook").status == 403
