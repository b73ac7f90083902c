"""Watches: from a version, from nowhere, with bookmarks and selectors; forgotten, cut, resumed."""

import pytest

from tests.apiserver.bodies import config, maps, pod, pods
from tests.apiserver.customs import custom
from tests.apiserver.servers import Server


def test_every_change_after_the_version_asked_for(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(maps(namespace), config("old"))
    then = server.admin.get(maps(namespace)).version
    server.admin.made(maps(namespace), config("a"))
    with server.admin.watching(maps(namespace), resourceVersion=then) as events:
        assert events.changes(1) == [("ADDED", "a")]
        server.admin.patch(maps(namespace, "a"), {"data": {"value": "b"}})
        server.admin.delete(maps(namespace, "a"))
        changed, deleted = events.next_of("MODIFIED"), events.next_of("DELETED")
    assert changed["object"]["data"] == {"value": "b"}
    assert deleted["object"]["data"] == {"value": "b"}, "as it was at last"
    assert int(deleted["object"]["metadata"]["resourceVersion"]) > int(changed["object"]["metadata"]["resourceVersion"])
    assert (changed["object"]["kind"], changed["object"]["apiVersion"]) == ("ConfigMap", "v1")


@pytest.mark.parametrize("version", ["", "0"])
def test_a_watch_from_no_version_begins_with_all_there_is(server: Server, version: str) -> None:
    namespace = server.namespace()
    server.admin.made(maps(namespace), config("a"))
    server.admin.made(maps(namespace), config("b"))
    query = {"resourceVersion": version} if version else {}
    with server.admin.watching(maps(namespace), **query) as events:
        assert sorted(events.changes(2)) == [("ADDED", "a"), ("ADDED", "b")]
        server.admin.made(maps(namespace), config("c"))
        assert events.changes(1) == [("ADDED", "c")]


def test_a_watch_ends_when_it_was_asked_to_and_says_before_how_far_it_came(server: Server) -> None:
    """The last bookmark is what a quiet watch goes on from. Who did not ask gets none."""
    namespace, other = server.namespace(), server.namespace()
    then = server.admin.get(maps(namespace)).version
    query = {"resourceVersion": then, "timeoutSeconds": 4}  # a real one says it 2 s before the end
    with (
        server.admin.watching(maps(namespace), **query, allowWatchBookmarks="true") as events,
        server.admin.watching(maps(namespace), **query) as plain,
    ):
        server.admin.made(maps(other), config("elsewhere"))
        told, told_plain = events.rest(), plain.rest()
    assert {event["type"] for event in told} == {"BOOKMARK"}
    last = told[-1]["object"]
    assert (last["kind"], last["apiVersion"]) == ("ConfigMap", "v1")
    assert int(last["metadata"]["resourceVersion"]) > int(then)
    assert told_plain == []


def test_a_version_that_is_forgotten_is_answered_with_gone(server: Server) -> None:
    """Of a kind that is younger than the version: what a real one's cache heard of, it does not forget on demand."""
    kind = custom(server, "Gone")
    with server.admin.watching(kind.path(), resourceVersion="1") as events:
        error = events.next_of("ERROR")["object"]
        assert (error["kind"], error["code"], error["reason"]) == ("Status", 410, "Expired")
        assert error["message"].startswith("too old resource version: 1 (")
        assert events.next() is None, "and the watch is over"


def test_a_cut_watch_goes_on_from_the_last_version(server: Server) -> None:
    namespace = server.namespace()
    then = server.admin.get(maps(namespace)).version
    with server.admin.watching(maps(namespace), resourceVersion=then) as events:
        server.admin.made(maps(namespace), config("a"))
        last = events.next_of("ADDED")["object"]["metadata"]["resourceVersion"]
        server.cutter.cut()
        server.admin.made(maps(namespace), config("b"))
        assert events.heard_after_the_cut() == []
    with server.admin.watching(maps(namespace), resourceVersion=last) as events:
        assert events.changes(1) == [("ADDED", "b")]


def test_an_object_that_leaves_what_is_selected_is_deleted_for_that_watch(server: Server) -> None:
    namespace = server.namespace()
    then = server.admin.get(maps(namespace)).version
    with server.admin.watching(maps(namespace), resourceVersion=then, labelSelector="mesh=on") as events:
        server.admin.made(maps(namespace), config("a"))
        server.admin.patch(maps(namespace, "a"), {"metadata": {"labels": {"mesh": "on"}}})
        server.admin.patch(maps(namespace, "a"), {"data": {"value": "b"}})
        server.admin.patch(maps(namespace, "a"), {"metadata": {"labels": {"mesh": None}}})
        assert events.changes(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        last = events.next_of("ADDED", "MODIFIED", "DELETED")
        assert (last["type"], last["object"]["metadata"]["labels"]) == ("DELETED", {"mesh": "on"})


def test_a_pod_appears_to_its_nodes_watch_when_it_is_bound(server: Server) -> None:
    namespace = server.namespace()
    then = server.admin.get(pods(namespace)).version
    query = {"resourceVersion": then, "fieldSelector": "spec.nodeName=node-1"}
    with server.admin.watching(pods(namespace), **query) as events:
        server.admin.made(pods(namespace), pod("elsewhere", node="node-2"))
        server.admin.made(pods(namespace), pod("web"))
        binding = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "node-1"}}
        server.admin.made(pods(namespace, "web", "binding"), binding)
        event = events.next_of("ADDED")
        assert (event["object"]["metadata"]["name"], event["object"]["spec"]["nodeName"]) == ("web", "node-1")


def test_what_changes_nothing_is_no_change(server: Server) -> None:
    namespace = server.namespace()
    made = server.admin.made(maps(namespace), config("a"))
    then = made["metadata"]["resourceVersion"]
    same = server.admin.patch(maps(namespace, "a"), {"data": {"value": "a"}})
    assert same.version == then
    with server.admin.watching(maps(namespace), resourceVersion=then) as events:
        server.admin.made(maps(namespace), config("b"))
        assert events.changes(1) == [("ADDED", "b")]
