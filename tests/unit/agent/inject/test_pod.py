"""What a pod is given, which pods are left as they are, and which are refused."""

from typing import Any

import pytest

from agent.inject.edits import applied, json_patch
from agent.inject.errors import Refused
from agent.inject.pod import injected, uninjected
from agent.inject.pod_security import refusal
from agent.inject.template import InvalidTemplate, Template
from tests.unit.agent.inject.pods import APP, NATIVE, ORDINARY, container, done, named, patched, pod

WAIT = {"name": "wait-for-db", "image": "busybox"}


# ── What is added ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_native_the_rules_then_the_proxy_then_the_applications_own_init_containers() -> None:
    after = done(pod(initContainers=[WAIT]))
    assert named(after, "initContainers") == ["headgate-init", "headgate-proxy", "wait-for-db"]
    assert named(after, "containers") == ["app"]
    assert container(after, "headgate-proxy")["restartPolicy"] == "Always"


def test_before_1_29_the_rules_come_last_so_that_init_containers_have_a_network() -> None:
    """Linkerd #4758: behind rules that lead to a proxy that does not run yet, an init container reaches nobody."""
    after = done(pod(initContainers=[WAIT]), ORDINARY)
    assert named(after, "initContainers") == ["wait-for-db", "headgate-init"]
    assert named(after, "containers") == ["app", "headgate-proxy"]
    assert "restartPolicy" not in container(after, "headgate-proxy")


def test_rights_net_admin_for_the_rules_and_none_for_the_proxy() -> None:
    after = done(pod(securityContext={"runAsNonRoot": True, "runAsUser": 1000}))
    rules = container(after, "headgate-init")["securityContext"]
    assert rules["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert (rules["runAsUser"], rules["runAsNonRoot"], rules["allowPrivilegeEscalation"]) == (0, False, False)
    proxy = container(after, "headgate-proxy")["securityContext"]
    assert proxy["capabilities"] == {"drop": ["ALL"]}
    assert (proxy["runAsUser"], proxy["runAsNonRoot"]) == (1337, True)


def test_iptables_legacy_has_raw_sockets_too() -> None:
    rules = container(done(pod(), Template(backend="iptables-legacy")), "headgate-init")
    assert rules["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW"]
    assert rules["args"][:3] == ["init", "--backend", "iptables-legacy"]


def test_policy_comes_from_a_config_map() -> None:
    after = done(pod(volumes=[{"name": "data", "emptyDir": {}}]), Template(config_map="mesh-policy"))
    assert named(after, "volumes") == ["data", "headgate-run", "headgate-policy"]
    proxy = container(after, "headgate-proxy")
    assert proxy["args"] == ["proxy", "--sidecar", "--config-dir", "/etc/headgate", "--log-format", "json"]
    assert {"name": "headgate-policy", "mountPath": "/etc/headgate", "readOnly": True} in proxy["volumeMounts"]


def test_what_was_given_is_left_as_it_was() -> None:
    before = pod({"a": "b"})
    done(before)
    assert before == pod({"a": "b"})


@pytest.mark.parametrize("spec", [{}, {"initContainers": None, "volumes": None}, {"initContainers": [], "volumes": []}])
@pytest.mark.parametrize("annotations", [None, {}, {"x": "y"}])
@pytest.mark.parametrize("template", [NATIVE, ORDINARY], ids=["native", "ordinary"])
def test_the_patch_does_what_the_edits_do_and_what_is_taken_out_was_never_there(
    spec: dict[str, Any], annotations: dict[str, str] | None, template: Template
) -> None:
    before = pod(annotations, **spec)
    edits = injected(before, template).edits
    after = applied(before, edits)
    assert patched(before, json_patch(edits)) == after
    back = uninjected(after).edits
    assert applied(after, back) == before
    assert patched(after, json_patch(back)) == before


# ── Again ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_twice_is_once() -> None:
    once = done(pod())
    again = injected(once, NATIVE)
    assert (again.edits, again.skipped) == ((), "")


def test_defaults_that_an_api_server_adds_are_no_difference() -> None:
    after = done(pod())
    for one in after["spec"]["initContainers"]:
        one |= {"imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log"}
        one["volumeMounts"] = [
            *one.get("volumeMounts", ()),
            {"name": "kube-api-access", "mountPath": "/var/run/secrets"},
        ]
    container(after, "headgate-proxy")["startupProbe"]["timeoutSeconds"] = 1
    after["spec"]["initContainers"].insert(0, {"name": "another-webhooks"})
    assert injected(after, NATIVE).edits == ()


@pytest.mark.parametrize(
    "newer",
    [Template(image="headgate:9.9.9"), ORDINARY, Template(config_map="policy"), Template(backend="nft")],
    ids=["image", "ordinary", "policy", "backend"],
)
def test_another_template_takes_the_place_of_the_first(newer: Template) -> None:
    before = pod(initContainers=[WAIT])
    once = done(before)
    edits = injected(once, newer).edits
    after = applied(once, edits)
    assert {**after["spec"]} == done(before, newer)["spec"]
    assert patched(once, json_patch(edits)) == after
    assert applied(after, uninjected(after).edits) == before


def test_policy_that_is_no_more_wanted_goes() -> None:
    after = done(done(pod(), Template(config_map="policy")), NATIVE)
    assert named(after, "volumes") == ["headgate-run"]


def test_another_annotation_is_other_arguments() -> None:
    once = done(pod({"headgate.io/exclude-outbound-ports": "5432"}))
    once["metadata"]["annotations"]["headgate.io/exclude-outbound-ports"] = "6379"
    assert "6379" in container(done(once), "headgate-init")["args"]


def test_what_others_put_into_parts_that_were_made_for_ours_stays() -> None:
    after = done(pod())
    after["spec"]["volumes"].append({"name": "later", "emptyDir": {}})
    after["metadata"]["annotations"]["later"] = "yes"
    back = applied(after, uninjected(after).edits)
    assert back == pod({"later": "yes"}, volumes=[{"name": "later", "emptyDir": {}}])


def test_empty_parts_that_an_api_server_has_dropped_are_not_missed() -> None:
    """`volumes: []` is not stored; then ours are the only ones, and the parts were not made for them."""
    after = done(pod({"x": "y"}, volumes=[{"name": "data"}], initContainers=[WAIT]))
    after["spec"]["volumes"] = [one for one in after["spec"]["volumes"] if one["name"] != "data"]
    assert applied(after, uninjected(after).edits)["spec"]["volumes"] == []


# ── Left as they are ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("before", "why"),
    [
        (pod({"headgate.io/inject": "disabled"}), "the pod says headgate.io/inject: disabled"),
        (pod(labels={"headgate.io/inject": "false"}), "the pod says headgate.io/inject: false"),
        (pod(labels={"headgate.io/mesh": "disabled"}), "the pod says headgate.io/mesh: disabled"),
        (pod({"sidecar.istio.io/inject": "false"}), "the pod says sidecar.istio.io/inject: false"),
        (pod({"linkerd.io/inject": "disabled"}), "the pod says linkerd.io/inject: disabled"),
        (pod(hostNetwork=True), "is on the host's network: rules for it would steer the node"),
        (pod(nodeSelector={"kubernetes.io/os": "windows"}), "runs on Windows: the rules are Linux's"),
        (pod(os={"name": "windows"}), "runs on Windows: the rules are Linux's"),
        (pod(containers=[APP, {"name": "istio-proxy"}]), "has a mesh's proxy already: container istio-proxy"),
        (pod(initContainers=[{"name": "linkerd-init"}]), "has a mesh's proxy already: container linkerd-init"),
        (pod({"sidecar.istio.io/status": "{}"}), "has a mesh's proxy already: annotation sidecar.istio.io/status"),
        (
            pod(initContainers=[{"name": "headgate-proxy"}]),
            "has a sidecar of headgate's that was written by hand: container headgate-proxy",
        ),
        (pod(containers=[]), "has no containers"),
        ({"metadata": None, "spec": None}, "has no containers"),
    ],
)
def test_left_out(before: dict[str, Any], why: str) -> None:
    left = injected(before, NATIVE)
    assert (left.edits, left.skipped) == ((), why)


def test_our_own_word_goes_before_other_meshes() -> None:
    before = pod({"headgate.io/inject": "enabled", "sidecar.istio.io/inject": "false"})
    assert injected(before, NATIVE).skipped == ""


def test_nothing_to_take_out() -> None:
    assert uninjected(pod()).skipped == "has nothing that headgate added"


# ── Refused ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("port", [15001, 15006, 15020, 15021])
def test_a_container_on_a_port_of_the_proxys(port: int) -> None:
    taken = {**APP, "ports": [{"containerPort": port}]}
    with pytest.raises(
        Refused, match=f"^container app: listens on {port}; the sidecar needs 15001, .*: give it another"
    ):
        injected(pod(containers=[taken]), NATIVE)
    udp = {**APP, "ports": [{"containerPort": port, "protocol": "UDP"}]}
    assert injected(pod(containers=[udp]), NATIVE).edits


def test_a_container_as_the_proxys_user() -> None:
    for before in (
        pod(securityContext={"runAsUser": 1337}),
        pod(containers=[{**APP, "securityContext": {"runAsUser": 1337}}]),
    ):
        with pytest.raises(Refused, match=r"^container app: runs as user 1337, .*; give it another user$"):
            injected(before, NATIVE)
    own = {**APP, "securityContext": {"runAsUser": 1000}}
    assert injected(pod(securityContext={"runAsUser": 1337}, containers=[own]), NATIVE).edits


def test_a_volume_with_the_name_of_ours() -> None:
    with pytest.raises(Refused, match=r"^volume headgate-run: has the name of one that is to be added"):
        injected(pod(volumes=[{"name": "headgate-run"}]), NATIVE)


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
def test_a_job_would_never_end_beside_an_ordinary_sidecar(policy: str) -> None:
    with pytest.raises(Refused, match=r"the pod would never end, .*; needs native sidecars \(Kubernetes 1\.29\)$"):
        injected(pod(restartPolicy=policy), ORDINARY)
    assert injected(pod(restartPolicy=policy), NATIVE).edits


@pytest.mark.parametrize(
    "status",
    ["", "no JSON", "[]", '{"made":[]}', '{"made":{"/spec":null}}', '{"made":{"/spec/volumes":" [] \\nx: y"}}',
     '{"made":{"/spec/volumes":{}}}', "[" * 100_000, "null"],
)  # fmt: skip
def test_a_status_that_somebody_else_has_written(status: str) -> None:
    before = pod({"headgate.io/injected": status})
    for decide in (lambda: uninjected(before), lambda: injected(before, NATIVE)):
        with pytest.raises(
            Refused, match=r"^annotation headgate.io/injected: is not as it was written: take out by hand"
        ):
            decide()


_HOSTILE: list[Any] = [
    None, 0, 1, "", "text", [], [None], [[]], {}, {"name": []}, {"": None}, {"kubernetes.io/os": []}, [{"name": None}],
    [{"name": "a", "ports": 1}], [{"name": "a", "ports": [1, {"containerPort": []}]}],
    [{"name": "a", "securityContext": []}],
]  # fmt: skip


@pytest.mark.parametrize("value", _HOSTILE, ids=str)
@pytest.mark.parametrize(
    "path",
    ["metadata", "spec", "metadata.annotations", "metadata.labels", "spec.containers", "spec.initContainers",
     "spec.volumes", "spec.securityContext", "spec.nodeSelector", "spec.os", "spec.restartPolicy", "spec.hostNetwork"],
)  # fmt: skip
def test_hostile_pods_are_refused_or_taken_and_nothing_else(path: str, value: Any) -> None:
    before = pod({"x": "y"})
    *above, last = path.split(".")
    (before[above[0]] if above else before)[last] = value
    for template in (NATIVE, ORDINARY):
        try:
            after = applied(before, injected(before, template).edits)
            if after != before:
                assert injected(after, template).edits == ()
        except Refused as error:
            assert str(error)


# ── Templates and namespaces ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image": "headgate"}, "image headgate: names no version"),
        ({"image": 'x:1"\n'}, "image x:1.* is no reference"),
        ({"config_map": "A"}, "config map A: is no name"),
        ({"config_map": "a/../b"}, "is no name"),
        ({"backend": "ebpf"}, "backend ebpf: is none of auto, nft"),
    ],
)
def test_wrong_templates(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTemplate, match=said):
        Template(**wrong)


def test_namespaces_that_refuse_net_admin() -> None:
    for level in ("baseline", "restricted"):
        assert f"namespace shop enforces pod security {level}, which refuses NET_ADMIN" in refusal("shop", level)
        assert "or use the node agent" in refusal("shop", level)
    assert refusal("shop", "privileged") == refusal("shop", "") == ""
