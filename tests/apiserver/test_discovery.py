"""What a server says of itself, and kinds that come and go."""

from tests.apiserver.bodies import config
from tests.apiserver.customs import Custom, custom
from tests.apiserver.servers import Server


def test_its_version_in_the_form_that_is_compared(server: Server) -> None:
    told = server.admin.get("/version").body
    assert (told["major"], told["minor"], told["gitVersion"]) == ("1", "34", "v1.34.4")


def test_groups_versions_and_resources(server: Server) -> None:
    assert server.admin.get("/api").body["versions"] == ["v1"]
    groups = {group["name"]: group for group in server.admin.get("/apis").body["groups"]}
    assert {"apps", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io"} <= set(groups)
    assert groups["apps"]["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    group = server.admin.get("/apis/coordination.k8s.io").body
    assert (group["kind"], group["name"]) == ("APIGroup", "coordination.k8s.io")
    assert "v1" in [version["version"] for version in group["versions"]]
    core = {one["name"]: one for one in server.admin.get("/api/v1").body["resources"]}
    assert (core["pods"]["kind"], core["pods"]["namespaced"], core["nodes"]["namespaced"]) == ("Pod", True, False)
    assert {"get", "list", "watch", "patch"} <= set(core["pods"]["verbs"])
    assert {"pods/status", "nodes/status"} <= set(core)
    leases = {one["name"] for one in server.admin.get("/apis/coordination.k8s.io/v1").body["resources"]}
    assert ("leases" in leases, "leases/status" in leases) == (True, False)


def test_what_nobody_serves(server: Server) -> None:
    unknown = server.admin.get("/apis/nowhere.example.com")
    assert (unknown.status, unknown.body) == (404, "404 page not found\n"), "not even a Status"
    version = server.admin.get("/apis/apps/v7")
    assert (version.status, version.reason) == (404, "NotFound")
    kind = server.admin.get("/apis/apps/v1/things")
    assert (kind.status, kind.message) == (404, "the server could not find the requested resource")


def test_a_kind_comes_with_its_definition_and_goes_with_it_and_its_objects(server: Server) -> None:
    routes = Custom("gateway.networking.k8s.io", "httproutes", "HTTPRoute")
    namespace = server.namespace()
    assert server.admin.get(routes.path()).status == 404
    routes.define(server)
    here = server.admin.get(f"/apis/{routes.group}/v1").body["resources"]
    assert {one["name"] for one in here} >= {"httproutes", "httproutes/status"}
    body = {"apiVersion": f"{routes.group}/v1", "kind": "HTTPRoute", "metadata": {"name": "canary"}, "spec": {}}
    assert server.admin.made(routes.path(namespace), body)["metadata"]["generation"] == 1
    listed = server.admin.get(routes.path()).body
    assert (listed["kind"], listed["items"][0]["kind"]) == ("HTTPRouteList", "HTTPRoute"), "items say what they are"
    then = listed["metadata"]["resourceVersion"]
    with server.admin.watching(routes.path(), resourceVersion=then) as events:
        routes.forget(server)
        assert ("DELETED", "canary") in [events.changes(1)[0]]
    routes.define(server)
    assert server.admin.get(routes.path()).names() == []
    routes.forget(server)


def test_a_custom_kinds_status_is_written_apart_and_does_not_count(server: Server) -> None:
    kind, namespace = custom(server, "Thing"), server.namespace()
    own = {"apiVersion": f"{kind.group}/v1", "kind": "Thing"}
    body = {**own, **config("a"), "spec": {"x": 1}, "status": {"ignored": True}}
    made = server.admin.made(kind.path(namespace), body)
    assert "status" not in made
    status = {"status": {"ok": True}, "spec": {"x": 2}, "metadata": {"labels": {"new": "1"}}}
    told = server.admin.patch(kind.path(namespace, "a", "status"), status).body
    assert (told["status"], told["spec"], told["metadata"]["generation"]) == ({"ok": True}, {"x": 1}, 1)
    assert "new" not in told["metadata"].get("labels", {}), "metadata is not a custom kind's status"
    changed = server.admin.patch(kind.path(namespace, "a"), {"spec": {"x": 3}, "status": {"ok": False}}).body
    assert (changed["status"], changed["spec"], changed["metadata"]["generation"]) == ({"ok": True}, {"x": 3}, 2)
    late = server.admin.patch(kind.path(namespace, "a", "status"), {"metadata": {"resourceVersion": "1"}, "status": {}})
    assert (late.status, late.reason) == (409, "Conflict")
    blind = server.admin.put(kind.path(namespace, "a"), {**own, **config("a")})
    assert (blind.status, "metadata.resourceVersion" in blind.message) == (422, True)


def test_what_is_broken_inside_a_custom_object_is_kept_as_it_is(server: Server) -> None:
    """Where its schema lets it pass: the reader must bear it."""
    kind, namespace = custom(server, "Broken", has_status=False), server.namespace()
    broken = {"spec": ["no", {"map": None}], "status": 7}
    body = {"apiVersion": f"{kind.group}/v1", "kind": "Broken", "metadata": {"name": "a"}, **broken}
    server.admin.made(kind.path(namespace), body)
    found = server.admin.get(kind.path(namespace, "a")).body
    assert {name: found[name] for name in broken} == broken
    assert server.admin.get(kind.path(namespace, "a", "status")).status == 404
