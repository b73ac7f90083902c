"""What `headgate install --webhook` adds: whom it is asked about, what it may, and what happens without it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from agent.cli import main
from agent.cli.webhook import PORT, WEBHOOK
from agent.webhook.keeper import CONFIGURATIONS
from agent.webhook.service import LINGER_S
from proxy.api.constants import AGENT_METRICS_PORT
from tests.kube.manifests.rendered import documents, of_kind
from tests.kube.manifests.test_arguments import _parsed


def _one(kind: str) -> dict[str, Any]:
    (found,) = of_kind(documents("webhook"), kind)
    return found


def _pod() -> dict[str, Any]:
    spec: dict[str, Any] = _one("Deployment")["spec"]["template"]["spec"]
    return spec


def _container() -> dict[str, Any]:
    (found,) = _pod()["containers"]
    return dict(found)


def _printed(*words: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.stdout))


def test_its_command_line_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _parsed({**_container(), "volumeMounts": []}, tmp_path, monkeypatch)
    assert given["image"] == _container()["image"]
    assert given["port"] == PORT
    assert {given["service"], given["secret"], given["configuration"]} == {WEBHOOK}


def test_names_and_ports_meet() -> None:
    service = _one("Service")
    assert service["spec"]["selector"] == _one("Deployment")["spec"]["selector"]["matchLabels"]
    ports = {one["name"]: one["containerPort"] for one in _container()["ports"]}
    assert ports == {"https": PORT, "metrics": AGENT_METRICS_PORT}
    assert service["spec"]["ports"][0]["targetPort"] == "https"
    policy = _one("NetworkPolicy")["spec"]
    assert {one["port"] for rule in policy["ingress"] for one in rule["ports"]} == set(ports.values())
    for one in _one("MutatingWebhookConfiguration")["webhooks"]:
        asked = one["clientConfig"]["service"]
        assert (asked["name"], asked["namespace"]) == (service["metadata"]["name"], service["metadata"]["namespace"])
        assert (asked["path"], asked["port"]) == ("/mutate", service["spec"]["ports"][0]["port"])
        assert "caBundle" not in one["clientConfig"]
    assert {_one(kind)["metadata"]["name"] for kind in ("Service", "Secret", "MutatingWebhookConfiguration")} == {
        WEBHOOK
    }


def test_it_may_what_its_two_objects_need_and_no_more() -> None:
    (local,) = _one("Role")["rules"]
    (wide,) = _one("ClusterRole")["rules"]
    assert local == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [WEBHOOK],
        "verbs": ["get", "update"],
    }
    assert wide == {
        "apiGroups": [CONFIGURATIONS.group],
        "resources": [CONFIGURATIONS.plural],
        "resourceNames": [WEBHOOK],
        "verbs": ["get", "update"],
    }


def test_applied_again_the_secret_keeps_its_keys() -> None:
    assert not {"data", "stringData"} & _one("Secret").keys()


def _asked_about(labels: dict[str, str], namespace: dict[str, str]) -> list[str]:
    """Names of the webhooks whose selectors match (metav1.LabelSelector)."""
    found = []
    for one in _one("MutatingWebhookConfiguration")["webhooks"]:
        sides = ((one["namespaceSelector"], namespace), (one["objectSelector"], labels))
        if all(_matches(wanted, given) for side, given in sides for wanted in side["matchExpressions"]):
            found.append(one["name"].partition(".")[0])
    return found


def _matches(wanted: dict[str, Any], labels: dict[str, str]) -> bool:
    value = labels.get(wanted["key"])
    match wanted["operator"]:
        case "In":
            return value in wanted["values"]
        case "NotIn":
            return value not in wanted["values"]
        case "DoesNotExist":
            return value is None
    raise AssertionError(wanted)


@pytest.mark.parametrize(
    ("pod", "namespace", "name", "asked"),
    [
        (None, None, "shop", []),
        (None, "enabled", "shop", ["namespace"]),
        ("enabled", None, "shop", ["pod"]),
        ("enabled", "enabled", "shop", ["pod"]),
        ("disabled", "enabled", "shop", []),
        ("anything", "enabled", "shop", []),
        ("enabled", "disabled", "shop", ["pod"]),
        (None, "disabled", "shop", []),
        ("enabled", "enabled", "kube-system", []),
        (None, "enabled", "kube-system", []),
        ("enabled", "enabled", "headgate-system", []),
        (None, "enabled", "headgate-system", []),
    ],
)
def test_who_is_asked_about(pod: str | None, namespace: str | None, name: str, asked: list[str]) -> None:
    """Never twice; never the cluster's own pods or ours, by which a broken webhook is mended."""
    label = "headgate.io/inject"
    labels = {} if pod is None else {label: pod}
    above = {"kubernetes.io/metadata.name": name} | ({} if namespace is None else {label: namespace})
    assert _asked_about(labels, above) == asked


def test_in_another_namespace_that_one_is_left_alone() -> None:
    found = _printed("install", "--webhook", "--namespace", "mesh")
    assert "headgate-system" not in yaml.safe_dump_all(found)
    for one in of_kind(found, "MutatingWebhookConfiguration")[0]["webhooks"]:
        excluded = one["namespaceSelector"]["matchExpressions"][-1]["values"]
        assert excluded == ["kube-system", "mesh"]


def test_every_webhook_fails_closed_within_a_requests_time_and_is_dry_run_safe() -> None:
    for one in _one("MutatingWebhookConfiguration")["webhooks"]:
        assert (one["failurePolicy"], one["sideEffects"], one["reinvocationPolicy"]) == ("Fail", "None", "IfNeeded")
        assert one["timeoutSeconds"] <= 10
        assert one["admissionReviewVersions"] == ["v1"]
        assert one["rules"][0]["operations"] == ["CREATE"]


def test_one_replica_may_always_go() -> None:
    assert _one("Deployment")["spec"]["replicas"] == 2
    assert _one("PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert _one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert _pod()["terminationGracePeriodSeconds"] > LINGER_S + 10


def test_it_is_nobody_and_writes_nothing() -> None:
    context = _pod()["securityContext"] | _container()["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    assert "volumes" not in _pod()


def test_another_image_is_also_what_pods_are_given() -> None:
    (found,) = of_kind(_printed("install", "--webhook", "--image", "mesh/headgate:2"), "Deployment")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "mesh/headgate:2"
    assert container["env"] == [{"name": "HEADGATE_IMAGE", "value": "mesh/headgate:2"}]


def test_the_configuration_is_the_last_to_come_and_the_first_to_go() -> None:
    words = ("--webhook", "--pod-monitor", "--overlay", "openshift")
    there = _printed("install", *words)
    gone = _printed("uninstall", "--step", "remove", *words)
    assert there[-1]["kind"] == gone[0]["kind"] == "MutatingWebhookConfiguration"
    kinds = {(one["kind"], one["metadata"]["name"]) for one in gone}
    assert kinds == {(one["kind"], one["metadata"]["name"]) for one in there} - {("DaemonSet", "headgate-agent")}


def test_openshift_lets_it_be_its_own_user() -> None:
    roles = [
        one["roleRef"]["name"]
        for one in of_kind(_printed("install", "--webhook", "--overlay", "openshift"), "RoleBinding")
    ]
    assert "system:openshift:scc:nonroot-v2" in roles
    others = of_kind(_printed("install", "--webhook"), "RoleBinding")
    assert "system:openshift:scc:nonroot-v2" not in [one["roleRef"]["name"] for one in others]
