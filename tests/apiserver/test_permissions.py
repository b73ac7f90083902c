"""Who one is at an API server, what one may, and in which words it is refused."""

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from agent.kube.access import Access, Credentials, ExecPlugin, Token
from agent.kube.errors import ApiRefused, CannotReach
from tests.apiserver.bodies import maps, pod, pods
from tests.apiserver.caller import Caller, until
from tests.apiserver.clients import client_of
from tests.apiserver.servers import Server

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_READ_PODS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]


@pytest.mark.parametrize(
    ("method", "path", "refusal"),
    [
        ("GET", "/api/v1/pods", 'pods is forbidden: User "{who}" cannot list resource "pods" in API group "" at the '
         "cluster scope"),
        ("GET", "/api/v1/pods?watch=1", 'pods is forbidden: User "{who}" cannot watch resource "pods" in API group "" '
         "at the cluster scope"),
        ("GET", "/api/v1/namespaces/{ns}/pods/web", 'pods "web" is forbidden: User "{who}" cannot get resource "pods" '
         'in API group "" in the namespace "{ns}"'),
        ("PATCH", "/api/v1/namespaces/{ns}/pods/web/status", 'pods "web" is forbidden: User "{who}" cannot patch '
         'resource "pods/status" in API group "" in the namespace "{ns}"'),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices", "endpointslices.discovery.k8s.io is forbidden: User "
         '"{who}" cannot list resource "endpointslices" in API group "discovery.k8s.io" at the cluster scope'),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases/l", 'leases.coordination.k8s.io "l" is forbidden: '
         'User "{who}" cannot update resource "leases" in API group "coordination.k8s.io" in the namespace "{ns}"'),
        ("GET", "/metrics", 'forbidden: User "{who}" cannot get path "/metrics"'),
    ],
)  # fmt: skip
def test_who_has_no_rule_is_told_which_one(server: Server, method: str, path: str, refusal: str) -> None:
    namespace = server.namespace()
    nobody = server.by_token(server.token(namespace, "default"))
    answer = nobody.call(method, path.format(ns=namespace), None if method == "GET" else {})
    assert (answer.status, answer.reason) == (403, "Forbidden")
    who = f"system:serviceaccount:{namespace}:default"
    assert answer.message == refusal.format(who=who, ns=namespace)


def test_a_rule_opens_what_it_names_and_nothing_else(server: Server) -> None:
    namespace = server.namespace()
    server.permits(namespace, "default", _READ_PODS)
    reader = server.by_token(server.token(namespace, "default"))
    until(lambda: reader.get("/api/v1/pods").status == 200, "the role is heeded")
    assert reader.get(pods(namespace, "no")).status == 404
    assert reader.post(pods(namespace), pod()).status == 403
    assert reader.get(maps(namespace)).status == 403


def test_an_access_review_says_before_what_would_be_refused(server: Server) -> None:
    namespace = server.namespace()
    server.permits(namespace, "default", _READ_PODS)
    reader = server.by_token(server.token(namespace, "default"))

    def may(caller: Caller, **attributes: str) -> bool:
        answer = caller.post(_REVIEWS, {"spec": {"resourceAttributes": attributes}})
        assert (answer.status, answer.body["kind"]) == (201, "SelfSubjectAccessReview")
        return bool(answer.body["status"]["allowed"])

    until(lambda: may(reader, verb="list", resource="pods"), "the role is heeded")
    assert not may(reader, verb="patch", resource="pods", subresource="status")
    assert not may(reader, verb="list", resource="leases", group="coordination.k8s.io", namespace=namespace)
    assert may(server.admin, verb="create", resource="clusterroles", group="rbac.authorization.k8s.io")


def test_a_client_certificate_is_a_user_and_its_organisation_a_group(server: Server) -> None:
    root, namespace = "/apis/rbac.authorization.k8s.io/v1", server.namespace()
    someone = server.by_certificate("someone", namespace)
    refused = someone.get(pods(namespace))
    assert (refused.status, 'User "someone" cannot list' in refused.message) == (403, True)
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    server.admin.made(f"{root}/namespaces/{namespace}/roles", {"metadata": {"name": "r"}, "rules": rules})
    binding = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": namespace}],
    }
    server.admin.made(f"{root}/namespaces/{namespace}/rolebindings", binding)
    until(lambda: someone.get(pods(namespace)).status == 200, "the group's role is heeded")
    assert someone.get("/api/v1/pods").status == 403, "of this namespace only"


def test_without_a_name_there_is_the_version_and_nothing_else(server: Server) -> None:
    nobody = server.by_token("")
    assert nobody.get("/version").status == 200
    refused = nobody.get("/api/v1/pods")
    assert (refused.status, 'User "system:anonymous"' in refused.message) == (403, True)
    unknown = server.by_token("nonsense").get("/version")
    assert (unknown.status, unknown.reason) == (401, "Unauthorized")


# ── Tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_token_says_until_when_it_holds_and_may_not_be_too_short(server: Server) -> None:
    namespace = server.namespace()
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    status = server.admin.made(path, {"spec": {"expirationSeconds": 600}})["status"]
    left_s = datetime.fromisoformat(status["expirationTimestamp"]).timestamp() - time.time()
    assert 540 < left_s < 660
    refused = server.admin.post(path, {"spec": {"expirationSeconds": 60}})
    assert (refused.status, "may not specify a duration less than 10 minutes" in refused.message) == (422, True)
    assert server.admin.post(path.replace("default", "nobody"), {"spec": {}}).status == 404


def test_a_token_ends_with_the_pod_it_is_bound_to(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(pods(namespace), pod("web", "node-1"))
    bound = server.by_token(server.token(namespace, "default", pod="web"))
    assert bound.get("/version").status == 200
    server.admin.delete(pods(namespace, "web"), {"gracePeriodSeconds": 0})
    until(lambda: bound.get("/version").status == 401, "the token is refused")  # a real one remembers it for 10 s


def test_a_token_is_bound_to_pods_of_its_own_account_only(server: Server) -> None:
    namespace = server.namespace()
    server.account(namespace, "other")
    server.admin.made(pods(namespace), pod("web", "node-1"))
    bound = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}
    answer = server.admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/other/token", {"spec": bound})
    assert (answer.status, "to pod running with different serviceaccount name" in answer.message) == (400, True)


# ── Our own client ─────────────────────────────────────────────────────────────────────────────────────────────────
async def _asks(access: Access, path: str) -> object:
    async with client_of(access) as client:
        return await client.get(path)


def test_our_client_by_certificate_by_token_and_by_plugin(server: Server, tmp_path: Path) -> None:
    namespace = server.namespace()
    server.permits(namespace, "default", _READ_PODS)
    token = server.token(namespace, "default")
    until(lambda: server.by_token(token).get("/api/v1/pods").status == 200, "the role is heeded")
    (tmp_path / "token").write_text(token)
    said = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
    plugin = tmp_path / "give"
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    plugin.chmod(0o755)
    ways: list[Credentials] = [
        server.authority.sign("a-reader", group="system:masters").client(),
        Token(token),
        Token(file=tmp_path / "token"),
        ExecPlugin(str(plugin), (), (), "client.authentication.k8s.io/v1", ""),
    ]
    for credentials in ways:
        assert asyncio.run(_asks(server.access(credentials), "/api/v1/pods"))


def test_our_client_is_told_in_the_servers_words(server: Server, tmp_path: Path) -> None:
    token = server.token(server.namespace(), "default")
    with pytest.raises(ApiRefused, match=r'403 Forbidden: pods is forbidden: User .* cannot list resource "pods"'):
        asyncio.run(_asks(server.access(token=token), "/api/v1/pods"))
    with pytest.raises(ApiRefused, match="401 Unauthorized"):
        asyncio.run(_asks(server.access(token="nonsense"), "/api/v1/pods"))
    with pytest.raises(CannotReach, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(_asks(Access(server.url, Token(token)), "/api/v1/pods"))
