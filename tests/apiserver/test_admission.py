"""Webhooks before a write is kept: whom they concern, what they change and refuse, and what happens without them."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.apiserver.bodies import config, maps
from tests.apiserver.caller import Answer, free_port, until
from tests.apiserver.servers import Server

_ROOT = "/apis/admissionregistration.k8s.io/v1"
_MUTATING = f"{_ROOT}/mutatingwebhookconfigurations"
Review = dict[str, Any]
Answers = Callable[[Review], dict[str, Any]]


@dataclass
class Hook:
    """A webhook that answers as the test says. `asked`: the requests, but for those that only ask whether it is on."""

    server: Server
    url: str
    asked: list[Review] = field(default_factory=list)
    answers: Answers = lambda request: {"allowed": True}

    def configuration(self, name: str, namespace: str, **more: Any) -> dict[str, Any]:
        """Of ConfigMaps of one namespace."""
        bundle = base64.b64encode(self.server.authority.own.certificate.read_bytes()).decode()
        rule = {"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"]}
        hook = {
            "name": f"{name}.example.com",
            "clientConfig": {"url": self.url, "caBundle": bundle},
            "rules": [{**rule, "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
        }
        return {"metadata": {"name": name}, "webhooks": [{**hook, **more}]}

    @contextmanager
    def configured(self, namespace: str, name: str = "", kinds: str = _MUTATING, **more: Any) -> Iterator[None]:
        """In force: a real server heeds a configuration a moment later."""
        name = name or f"hook-{namespace}"
        self.server.admin.made(kinds, self.configuration(name, namespace, **more))
        try:
            yield
        finally:
            assert self.server.admin.delete(f"{kinds}/{name}").status == 200


def _patch(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(steps).encode()).decode()}


def _label(name: str) -> dict[str, Any]:
    return {"allowed": True, **_patch({"op": "add", "path": "/metadata/labels", "value": {name: "yes"}})}


@pytest.fixture
def hook(server: Server) -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            made.asked.append(request)
            response = {"uid": request["uid"], **made.answers(request)}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    signed = server.authority.sign(f"hook-{listening.server_port}", "IP:127.0.0.1")
    listening.socket = server.authority.server(signed).wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    made = Hook(server, f"https://127.0.0.1:{listening.server_port}/admit")
    thread.start()
    try:
        yield made
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def _until_heeded(hook: Hook, namespace: str, named: str = "probe") -> None:
    def is_asked() -> bool:
        hook.server.admin.post(maps(namespace), config(named), dryRun="All")
        return bool(hook.asked)

    until(is_asked, "the webhook is asked")
    hook.asked.clear()


def test_what_is_asked_and_what_is_made_of_the_answer(server: Server, hook: Hook) -> None:
    namespace = server.namespace()
    hook.answers = lambda request: {**_label("seen"), "warnings": ["mind the gap"]}
    with hook.configured(namespace):
        _until_heeded(hook, namespace)
        answer = server.admin.post(maps(namespace), config("a"))
        assert (answer.status, answer.body["metadata"]["labels"]) == (201, {"seen": "yes"})
        assert answer.warnings == ('299 - "mind the gap"',)
        assert server.admin.get(maps(namespace, "a")).body["metadata"]["labels"] == {"seen": "yes"}
        (request,) = hook.asked
        assert request["operation"] == "CREATE"
        assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
        assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
        assert (request["namespace"], request["name"], request["dryRun"]) == (namespace, "a", False)
        assert request["userInfo"]["username"] == "administrator"
        assert "system:masters" in request["userInfo"]["groups"]
        assert (request["object"]["data"], request["oldObject"]) == ({"value": "a"}, None)
        assert request["options"] == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"} | request["options"]


def test_updates_and_deletes_show_what_was(server: Server, hook: Hook) -> None:
    namespace = server.namespace()
    with hook.configured(namespace):
        _until_heeded(hook, namespace)
        server.admin.made(maps(namespace), config("a"))
        server.admin.patch(maps(namespace, "a"), {"data": {"value": "b"}})
        server.admin.delete(maps(namespace, "a"))
        _, update, delete = hook.asked
        assert (update["operation"], update["oldObject"]["data"]["value"]) == ("UPDATE", "a")
        assert update["object"]["data"]["value"] == "b"
        assert (delete["operation"], delete["object"], delete["oldObject"]["data"]["value"]) == ("DELETE", None, "b")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ({"message": "not like this"}, 400, "denied the request: not like this"),
        ({"message": "no", "code": 403}, 403, "denied the request: no"),
        (None, 400, "denied the request without explanation"),
    ],
)
def test_a_refusal_says_whose_it_is(
    server: Server, hook: Hook, status: dict[str, Any] | None, code: int, said: str
) -> None:
    namespace = server.namespace()
    with hook.configured(namespace):
        _until_heeded(hook, namespace)
        hook.answers = lambda request: {"allowed": False, **({"status": status} if status else {})}
        answer = server.admin.post(maps(namespace), config("a"))
        assert (answer.status, answer.message) == (code, f'admission webhook "hook-{namespace}.example.com" {said}')
        assert server.admin.get(maps(namespace, "a")).status == 404


def _nonsense(request: Review) -> dict[str, Any]:
    return {"uid": "another", "allowed": True}


def _no_patch_type(request: Review) -> dict[str, Any]:
    return {"allowed": True, "patch": base64.b64encode(b"[]").decode()}


@pytest.mark.parametrize("answers", [_nonsense, _no_patch_type, lambda request: {"allowed": True, **_patch({})}])
def test_an_answer_that_is_none_fails_the_write(server: Server, hook: Hook, answers: Answers) -> None:
    namespace = server.namespace()
    with hook.configured(namespace):
        _until_heeded(hook, namespace)
        hook.answers = answers
        answer = server.admin.post(maps(namespace), config("a"))
        assert answer.status == 500


def test_without_an_answer_the_failure_policy_decides(server: Server, hook: Hook) -> None:
    namespace, nowhere = server.namespace(), f"https://127.0.0.1:{free_port()}/admit"
    config_of = hook.configuration("gone", namespace)["webhooks"][0]["clientConfig"]

    def tried() -> Answer:
        return server.admin.post(maps(namespace), config("a"), dryRun="All")

    with hook.configured(namespace, clientConfig={**config_of, "url": nowhere}, failurePolicy="Fail"):
        until(lambda: tried().status == 500, "the webhook is missed")
        said = f'Internal error occurred: failed calling webhook "hook-{namespace}.example.com": failed to call webhook'
        assert said in tried().message
    until(lambda: tried().status == 201, "it is not asked any more")
    with (
        hook.configured(namespace, "first", clientConfig={**config_of, "url": nowhere}, failurePolicy="Ignore"),
        hook.configured(namespace, "second"),
    ):
        _until_heeded(hook, namespace)
        assert tried().status == 201


def test_another_authoritys_certificate_is_no_answer(server: Server, hook: Hook) -> None:
    namespace = server.namespace()
    shown = hook.configuration("x", namespace)["webhooks"][0]["clientConfig"]
    other = server.authority.sign(f"other-{namespace}").certificate.read_bytes()
    with hook.configured(namespace, clientConfig={**shown, "caBundle": base64.b64encode(other).decode()}):
        until(lambda: server.admin.post(maps(namespace), config("a"), dryRun="All").status == 500, "it is refused")
        assert hook.asked == []


def test_only_who_is_selected_is_asked_about(server: Server, hook: Hook) -> None:
    namespace, other = server.namespace(), server.namespace()
    selector = {"matchExpressions": [{"key": "mesh", "operator": "NotIn", "values": ["off"]}]}
    with hook.configured(namespace, objectSelector=selector):
        _until_heeded(hook, namespace)
        server.admin.made(maps(other), config("a"))
        server.admin.made(maps(namespace), config("off", labels={"mesh": "off"}))
        server.account(namespace, "of-another-kind")
        server.admin.made(maps(namespace), config("on", labels={"mesh": "on"}))
        assert [request["name"] for request in hook.asked] == ["on"]


def test_who_came_first_is_asked_again_when_a_later_one_changed_something(server: Server, hook: Hook) -> None:
    namespace = server.namespace()
    with (
        hook.configured(namespace, f"a-{namespace}", reinvocationPolicy="IfNeeded"),
        hook.configured(namespace, f"b-{namespace}"),
    ):
        until(lambda: _asked_at_once(server, hook, namespace) == 2, "both are asked")
        hook.asked.clear()
        hook.answers = lambda request: _label("second") if len(hook.asked) == 2 else {"allowed": True}
        server.admin.made(maps(namespace), config("c"))
        seen = [request["object"]["metadata"].get("labels") for request in hook.asked]
        assert seen == [None, None, {"second": "yes"}], "and sees what was made of it meanwhile"


def _asked_at_once(server: Server, hook: Hook, namespace: str) -> int:
    hook.asked.clear()
    server.admin.post(maps(namespace), config("probe"), dryRun="All")
    return len({request["uid"] for request in hook.asked})


def test_a_webhook_with_side_effects_is_not_asked_in_a_dry_run(server: Server, hook: Hook) -> None:
    """NoneOnDryRun is, for it knows; what is neither is refused when it is configured."""
    namespace = server.namespace()
    refused = server.admin.post(_MUTATING, hook.configuration(f"some-{namespace}", namespace, sideEffects="Some"))
    assert (refused.status, "sideEffects" in refused.message) == (422, True)
    with hook.configured(namespace, sideEffects="NoneOnDryRun"):
        until(lambda: _asked_at_once(server, hook, namespace) == 1, "it is asked")
        assert hook.asked[0]["dryRun"] is True
        assert server.admin.get(maps(namespace, "probe")).status == 404


def test_a_validating_webhook_sees_what_the_others_made_and_changes_nothing(server: Server, hook: Hook) -> None:
    namespace = server.namespace()
    hook.answers = lambda request: _label("mutated")
    kinds = f"{_ROOT}/validatingwebhookconfigurations"
    with hook.configured(namespace, f"a-{namespace}"), hook.configured(namespace, f"b-{namespace}", kinds):
        until(lambda: _asked_at_once(server, hook, namespace) == 2, "both are asked")
        hook.asked.clear()
        hook.answers = lambda request: {"allowed": True} if request["object"]["metadata"].get("labels") else _label("m")
        assert server.admin.made(maps(namespace), config("a"))["metadata"]["labels"] == {"m": "yes"}
        assert [request["object"]["metadata"].get("labels") for request in hook.asked] == [None, {"m": "yes"}]
