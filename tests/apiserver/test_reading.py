"""Lists: pages of one moment, versions, selectors."""

import base64
import json

import pytest

from tests.apiserver.bodies import config, maps, pod, pods
from tests.apiserver.customs import custom
from tests.apiserver.servers import Server


def test_pages_of_a_list_are_all_of_one_moment(server: Server) -> None:
    namespace = server.namespace()
    for name in "abcde":
        server.admin.made(maps(namespace), config(name))
    first = server.admin.get(maps(namespace), limit=2)
    assert first.names() == ["a", "b"]
    assert first.body["metadata"]["remainingItemCount"] == 3
    server.admin.delete(maps(namespace, "c"))
    server.admin.made(maps(namespace), config("bb"))
    server.admin.patch(maps(namespace, "d"), {"data": {"value": "later"}})
    more = first.body["metadata"]["continue"]
    second = server.admin.get(maps(namespace), limit=2, **{"continue": more})
    assert second.names() == ["c", "d"], "what was deleted is still on this page"
    assert second.body["items"][1]["data"] == {"value": "a"}
    assert second.version == first.version
    third = server.admin.get(maps(namespace), limit=2, **{"continue": second.body["metadata"]["continue"]})
    assert (third.names(), "continue" in third.body["metadata"]) == (["e"], False)
    assert server.admin.get(maps(namespace)).names() == ["a", "b", "bb", "d", "e"]


def test_a_page_or_a_list_of_a_forgotten_moment_is_refused_as_expired(server: Server) -> None:
    """Of a kind that is younger: what a real one's cache remembers, compaction does not take from it (since 1.34)."""
    namespace, kind = server.namespace(), custom(server, "Page")
    for name in "abc":
        server.admin.made(kind.path(namespace), {"apiVersion": f"{kind.group}/v1", "kind": "Page", **config(name)})
    more = server.admin.get(kind.path(namespace), limit=1).body["metadata"]["continue"]
    server.forget()
    page = server.admin.get(kind.path(namespace), limit=1, **{"continue": _aged(more)})
    assert (page.status, page.reason) == (410, "Expired")
    assert "continue parameter is too old" in page.message
    exact = server.admin.get(kind.path(namespace), resourceVersion="1", resourceVersionMatch="Exact")
    assert (exact.status, exact.reason) == (410, "Expired")


def _aged(more: str) -> str:
    """The same place in a list of long ago."""
    words = json.loads(base64.urlsafe_b64decode(more + "=="))
    return base64.urlsafe_b64encode(json.dumps({**words, "rv": 1}).encode()).decode().rstrip("=")


def test_a_continue_word_of_nobodys_is_refused(server: Server) -> None:
    namespace = server.namespace()
    assert server.admin.get(maps(namespace), limit=1, **{"continue": "nonsense"}).status == 400


def test_a_list_from_the_cache_is_whole_whatever_the_limit(server: Server) -> None:
    """Which is why a first list of ours is one answer, read bit by bit."""
    namespace = server.namespace()
    for name in "abc":
        server.admin.made(maps(namespace), config(name))
    now = server.admin.get(maps(namespace)).version
    cached = server.admin.get(maps(namespace), resourceVersion=now, resourceVersionMatch="NotOlderThan")
    assert int(cached.version) >= int(now)
    assert cached.names() == ["a", "b", "c"]
    any_version = server.admin.get(maps(namespace), limit=1, resourceVersion="0")
    assert any_version.names() == ["a", "b", "c"]
    assert "continue" not in any_version.body["metadata"]


def test_a_list_of_exactly_one_moment(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(maps(namespace), config("a"))
    then = server.admin.get(maps(namespace)).version
    server.admin.patch(maps(namespace, "a"), {"data": {"value": "later"}})
    server.admin.made(maps(namespace), config("b"))
    exact = server.admin.get(maps(namespace), resourceVersion=then, resourceVersionMatch="Exact")
    assert (exact.names(), exact.version) == (["a"], then)
    assert exact.body["items"][0]["data"] == {"value": "a"}


def test_a_version_from_the_future_is_refused_after_a_while_and_asks_to_try_again(server: Server) -> None:
    namespace = server.namespace()
    future = str(int(server.admin.get(maps(namespace)).version) + 1_000_000)
    answer = server.admin.get(maps(namespace), resourceVersion=future, resourceVersionMatch="NotOlderThan")
    assert (answer.status, answer.reason) == (504, "Timeout")
    assert "Too large resource version" in answer.message


def test_a_version_that_is_no_number_is_refused(server: Server) -> None:
    namespace = server.namespace()
    assert server.admin.get(maps(namespace), resourceVersion="soon").status == 400


def test_items_of_a_core_list_have_neither_kind_nor_version(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(maps(namespace), config("a"))
    body = server.admin.get(maps(namespace)).body
    assert (body["kind"], body["apiVersion"]) == ("ConfigMapList", "v1")
    assert "kind" not in body["items"][0]
    assert list(body)[:2] == ["kind", "apiVersion"], "told before the items: they are read while they come"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("tier=web", ["a", "b"]),
        ("tier==web,stage!=test", ["a"]),
        ("tier in (web,db),stage", ["a", "b", "c"]),
        ("tier notin (web)", ["c", "d"]),
        ("!tier", ["d"]),
        ("tier", ["a", "b", "c"]),
    ],
)
def test_label_selectors(server: Server, wanted: str, names: list[str]) -> None:
    namespace = server.namespace()
    labels = {
        "a": {"tier": "web", "stage": "live"},
        "b": {"tier": "web", "stage": "test"},
        "c": {"tier": "db", "stage": "live"},
        "d": {},
    }
    for name, held in labels.items():
        server.admin.made(maps(namespace), config(name, labels=held))
    assert server.admin.get(maps(namespace), labelSelector=wanted).names() == names


def test_a_label_selector_that_cannot_be_read_is_refused(server: Server) -> None:
    assert server.admin.get("/api/v1/configmaps", labelSelector="a b c").status == 400


def test_field_selectors_of_pods_and_of_nothing_else(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(pods(namespace), pod("a", node="node-1"))
    server.admin.made(pods(namespace), pod("b", node="node-2"))
    server.admin.made(pods(namespace), pod("c"))
    assert server.admin.get(pods(namespace), fieldSelector="spec.nodeName=node-1").names() == ["a"]
    assert server.admin.get(pods(namespace), fieldSelector="spec.nodeName!=").names() == ["a", "b"]
    assert server.admin.get(pods(namespace), fieldSelector="metadata.name=b,spec.nodeName=node-2").names() == ["b"]
    assert server.admin.get(pods(namespace), fieldSelector="status.phase=Pending").names() == ["a", "b", "c"]
    refused = server.admin.get(pods(namespace), fieldSelector="spec.dnsPolicy=x")
    assert refused.status == 400
    assert "field label not supported" in refused.message


def test_what_is_not_there_is_said_by_name_and_resource(server: Server) -> None:
    namespace = server.namespace()
    answer = server.admin.get(pods(namespace, "no"))
    assert (answer.status, answer.reason, answer.message) == (404, "NotFound", 'pods "no" not found')
    assert answer.body["details"] == {"name": "no", "kind": "pods"}
    answer = server.admin.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/no")
    assert answer.message == 'leases.coordination.k8s.io "no" not found'
    assert server.admin.get("/apis/nowhere.example/v1/things").status == 404
