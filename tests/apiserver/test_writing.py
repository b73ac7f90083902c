"""Writes: names, conditions, kinds of patches, subresources, ends."""

import pytest

from tests.apiserver.bodies import config, leases, maps, pod, pods
from tests.apiserver.caller import JSON_PATCH, MERGE, STRATEGIC
from tests.apiserver.servers import Server


def test_a_new_object_has_a_uid_a_version_and_a_time(server: Server) -> None:
    namespace = server.namespace()
    made = server.admin.made(maps(namespace), config("a"))["metadata"]
    assert len(made["uid"]) == 36
    assert made["resourceVersion"].isdecimal()
    assert made["creationTimestamp"].endswith("Z")
    assert made["namespace"] == namespace


def test_a_name_may_be_left_to_the_server(server: Server) -> None:
    namespace = server.namespace()
    bodies = [server.admin.made(maps(namespace), {"metadata": {"generateName": "web-"}}) for _ in range(2)]
    first, second = (body["metadata"]["name"] for body in bodies)
    assert first.startswith("web-")
    assert (len(first), first != second) == (len("web-") + 5, True)


def test_the_same_name_twice_is_refused(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(maps(namespace), config("a"))
    again = server.admin.post(maps(namespace), config("a"))
    assert (again.status, again.reason) == (409, "AlreadyExists")
    assert again.message == 'configmaps "a" already exists'


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"metadata": {}}, "metadata.name"),
        ({"metadata": {"name": "A_b"}}, "metadata.name"),
        ({"metadata": {"name": "web"}, "spec": {}}, "spec.containers"),
    ],
)
def test_what_is_invalid_is_named(server: Server, body: dict[str, object], field: str) -> None:
    namespace = server.namespace()
    answer = server.admin.post(pods(namespace), body)
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert field in answer.message
    assert field in {cause["field"] for cause in answer.body["details"]["causes"]}


def test_a_namespace_that_is_not_there_is_refused(server: Server) -> None:
    answer = server.admin.post(maps("nowhere-at-all"), config("a"))
    assert (answer.status, answer.message) == (404, 'namespaces "nowhere-at-all" not found')


def test_another_namespace_or_kind_in_the_body_is_refused(server: Server) -> None:
    namespace = server.namespace()
    body = config("a")
    body["metadata"]["namespace"] = "other"
    assert server.admin.post(maps(namespace), body).status == 400
    assert server.admin.post(maps(namespace), {**config("a"), "kind": "Pod", "apiVersion": "v1"}).status == 400
    assert server.admin.post(maps(namespace), b"{").status == 400


def test_a_method_that_the_path_has_not_is_refused(server: Server) -> None:
    namespace = server.namespace()
    answer = server.admin.post(maps(namespace, "a"), config("a"))
    assert (answer.status, answer.reason) == (405, "MethodNotAllowed")


# ── PUT ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_whole_object_replaces_the_version_it_names_and_no_other(server: Server) -> None:
    namespace = server.namespace()
    first = server.admin.made(maps(namespace), config("a"))
    second = server.admin.put(maps(namespace, "a"), {**first, "data": {"value": "b"}})
    assert (second.status, second.body["data"]) == (200, {"value": "b"})
    late = server.admin.put(maps(namespace, "a"), {**first, "data": {"value": "c"}})
    assert (late.status, late.reason) == (409, "Conflict")
    assert late.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to '
        "the latest version and try again"
    )
    assert server.admin.put(maps(namespace, "a"), config("a", "any")).status == 200, "no version: whatever is there"


def test_a_uid_in_a_put_is_a_condition(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(maps(namespace), config("a"))
    body = config("a", "b")
    body["metadata"]["uid"] = "00000000-0000-0000-0000-00000000dead"
    refused = server.admin.put(maps(namespace, "a"), body)
    assert (refused.status, refused.reason) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: 00000000-0000-0000-0000-00000000dead" in refused.message


def test_a_put_to_another_name_or_to_nothing_is_refused(server: Server) -> None:
    namespace = server.namespace()
    assert server.admin.put(maps(namespace, "a"), config("b")).status == 400
    assert server.admin.put(maps(namespace, "a"), config("a")).status == 404


def test_a_lease_must_say_which_version_it_replaces(server: Server) -> None:
    namespace = server.namespace()
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}
    made = server.admin.made(leases(namespace), lease)
    blind = server.admin.put(leases(namespace, "l"), {**lease, "spec": {"holderIdentity": "b"}})
    assert (blind.status, blind.reason) == (422, "Invalid")
    assert "metadata.resourceVersion" in blind.message
    taken = server.admin.put(leases(namespace, "l"), {**made, "spec": {**made["spec"], "holderIdentity": "b"}})
    assert taken.body["spec"]["holderIdentity"] == "b"
    late = server.admin.put(leases(namespace, "l"), {**made, "spec": {**made["spec"], "holderIdentity": "c"}})
    assert late.status == 409


# ── PATCH ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_merge_patch_adds_changes_and_takes_away(server: Server) -> None:
    namespace = server.namespace()
    made = config("a", labels={"keep": "1", "drop": "1"})
    server.admin.made(maps(namespace), made)
    change = {"metadata": {"labels": {"drop": None, "new": "1"}}, "data": {"more": "b"}}
    for kind in (MERGE, STRATEGIC):
        answer = server.admin.patch(maps(namespace, "a"), change, kind)
        assert answer.status == 200
        assert answer.body["metadata"]["labels"] == {"keep": "1", "new": "1"}
        assert answer.body["data"] == {"value": "a", "more": "b"}


def test_a_json_patch_is_done_whole_or_not_at_all(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(maps(namespace), config("a", labels={"x/y": "1"}))
    test, remove = (
        {"op": "test", "path": "/data/value", "value": "a"},
        {"op": "remove", "path": "/metadata/labels/x~1y"},
    )
    add = {"op": "add", "path": "/data/more", "value": "b"}
    answer = server.admin.patch(maps(namespace, "a"), [test, remove, add], JSON_PATCH)
    assert (answer.status, answer.body["data"]) == (200, {"value": "a", "more": "b"})
    assert "labels" not in answer.body["metadata"] or answer.body["metadata"]["labels"] == {}
    wrong = {**test, "value": "z"}
    assert server.admin.patch(maps(namespace, "a"), [{**add, "value": "c"}, wrong], JSON_PATCH).status == 422
    assert server.admin.get(maps(namespace, "a")).body["data"]["more"] == "b"


def test_conditions_in_a_patch(server: Server) -> None:
    """A pod made anew under a name must not get what was meant for the one before."""
    namespace = server.namespace()
    made = server.admin.made(pods(namespace), pod("web"))["metadata"]
    for subresource in ("", "status"):
        path = pods(namespace, "web", subresource)
        note = {"annotations": {"a": subresource or "-"}}
        other = server.admin.patch(path, {"metadata": {"uid": "00000000-0000-0000-0000-00000000dead", **note}})
        assert (other.status, other.reason) == (422, "Invalid"), "unlike a PUT's"
        assert "metadata.uid" in {cause["field"] for cause in other.body["details"]["causes"]}
        late = server.admin.patch(path, {"metadata": {"resourceVersion": "1", **note}})
        assert (late.status, late.reason) == (409, "Conflict")
        assert server.admin.patch(path, {"metadata": {"uid": made["uid"], **note}}).status == 200


def test_a_patch_of_what_is_not_there_or_of_another_media_type_is_refused(server: Server) -> None:
    namespace = server.namespace()
    assert server.admin.patch(maps(namespace, "a"), {"data": {}}).status == 404
    server.admin.made(maps(namespace), config("a"))
    assert server.admin.patch(maps(namespace, "a"), {"data": {}}, "application/json").status == 415
    assert server.admin.patch(maps(namespace, "a"), [1], MERGE).status == 400


# ── Status ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_annotations_of_a_pod_may_be_written_by_its_status_and_its_spec_may_not(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(pods(namespace), pod("web", labels={"app": "web"}))
    change = {
        "metadata": {"annotations": {"headgate.io/status": "enrolled"}},
        "spec": {"containers": [{"name": "one", "image": "other"}]},
        "status": {"phase": "Running"},
    }
    answer = server.admin.patch(pods(namespace, "web", "status"), change)
    assert answer.status == 200
    assert answer.body["metadata"]["annotations"]["headgate.io/status"] == "enrolled"
    assert answer.body["spec"]["containers"][0]["image"] == "one"
    assert answer.body["status"]["phase"] == "Running"


def test_a_status_is_not_written_along_with_the_rest(server: Server) -> None:
    namespace = server.namespace()
    body = {**pod("web"), "status": {"phase": "Running"}}
    assert server.admin.made(pods(namespace), body)["status"]["phase"] == "Pending"
    answer = server.admin.patch(pods(namespace, "web"), {"status": {"phase": "Running"}})
    assert (answer.status, answer.body["status"]["phase"]) == (200, "Pending")


# ── Ends ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_pod_on_a_node_has_its_grace_and_is_ended_by_its_node(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(pods(namespace), pod("web", node="node-1"))
    then = server.admin.get(pods(namespace)).version
    with server.admin.watching(pods(namespace), resourceVersion=then) as events:
        first = server.admin.delete(pods(namespace, "web"))
        assert (first.status, first.body["kind"]) == (200, "Pod")
        told = events.next_of("MODIFIED")["object"]["metadata"]
        assert told["deletionGracePeriodSeconds"] == 30
        assert told["deletionTimestamp"]
        assert server.admin.get(pods(namespace, "web")).status == 200, "still there"
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": told["uid"]}}
        assert server.admin.delete(pods(namespace, "web"), options).status == 200
        assert events.next_of("DELETED")["object"]["metadata"]["name"] == "web"
    assert server.admin.get(pods(namespace, "web")).status == 404


def test_a_pod_on_no_node_is_gone_at_once(server: Server) -> None:
    namespace = server.namespace()
    server.admin.made(pods(namespace), pod("web"))
    assert server.admin.delete(pods(namespace, "web")).status == 200
    assert server.admin.get(pods(namespace, "web")).status == 404


def test_conditions_of_a_delete(server: Server) -> None:
    namespace = server.namespace()
    made = server.admin.made(maps(namespace), config("a"))["metadata"]
    for wrong, what in (({"uid": "00000000-0000-0000-0000-00000000dead"}, "UID"), ({"resourceVersion": "1"}, "Res")):
        refused = server.admin.delete(maps(namespace, "a"), {"preconditions": wrong})
        assert (refused.status, refused.reason) == (409, "Conflict")
        assert f'Operation cannot be fulfilled on ConfigMap "a": the {what}' in refused.message
    done = server.admin.delete(maps(namespace, "a"), {"preconditions": {"uid": made["uid"]}})
    assert (done.status, done.body["kind"], done.body["status"]) == (200, "Status", "Success")
    assert done.body["details"] == {"name": "a", "kind": "configmaps", "uid": made["uid"]}
    assert server.admin.delete(maps(namespace, "a")).status == 404


def test_an_object_with_a_finalizer_waits_for_it(server: Server) -> None:
    namespace = server.namespace()
    body = config("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    server.admin.made(maps(namespace), body)
    assert server.admin.delete(maps(namespace, "a")).status == 200
    held = server.admin.get(maps(namespace, "a"))
    assert held.body["metadata"]["deletionTimestamp"]
    assert server.admin.patch(maps(namespace, "a"), {"metadata": {"finalizers": None}}).status == 200
    assert server.admin.get(maps(namespace, "a")).status == 404


def test_a_namespace_that_ends_takes_nothing_new(server: Server) -> None:
    namespace = server.namespace()
    path = f"/api/v1/namespaces/{namespace}"
    assert server.admin.get(path).body["status"]["phase"] == "Active"
    server.admin.delete(path)
    ending = server.admin.get(path).body
    assert (ending["status"]["phase"], ending["spec"]["finalizers"]) == ("Terminating", ["kubernetes"])
    refused = server.admin.post(maps(namespace), config("a"))
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert f"unable to create new content in namespace {namespace} because it is being terminated" in refused.message
    server.admin.put(f"{path}/finalize", {**ending, "spec": {"finalizers": []}})
    assert server.admin.get(path).status == 404


def test_a_dry_run_answers_and_keeps_nothing(server: Server) -> None:
    namespace = server.namespace()
    made = server.admin.post(maps(namespace), config("a"), dryRun="All")
    assert (made.status, made.body["metadata"]["name"]) == (201, "a")
    assert server.admin.get(maps(namespace, "a")).status == 404


def test_all_of_a_namespace_by_one_delete(server: Server) -> None:
    namespace = server.namespace()
    for name in "ab":
        server.admin.made(maps(namespace), config(name, labels={"mine": "yes"}))
    server.admin.made(maps(namespace), config("c"))
    assert server.admin.delete(maps(namespace), labelSelector="mine=yes").status == 200
    assert server.admin.get(maps(namespace)).names() == ["c"]
