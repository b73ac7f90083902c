"""What `headgate inject` prints, to a server: taken whole, and found as it should be when it is read back."""

import json
import os
from typing import Any

import pytest

from agent.inject.manifests import Outcome, Surroundings, inject, read, uninject
from agent.inject.pod_security import ENFORCED, refusal
from agent.inject.template import Template
from tests.apiserver.servers import Server
from tests.kube.manifests.rendered import ROOT

_REAL = bool(os.environ.get("HEADGATE_APISERVER"))
_SHOP = ROOT / "tests/golden/inject/shop.yaml"
_PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
    "Service": "/api/v1/namespaces/{}/services",
}
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web"},
    "spec": {"containers": [{"name": "web", "image": "web:1"}], "volumes": []},
}
TEMPLATES = {
    "native": Template(),
    "ordinary": Template(native=False),
    "policy": Template(config_map="policy", backend="iptables-legacy"),
}


def injected(body: dict[str, Any], template: Template) -> dict[str, Any]:
    (done,) = read(inject(read(json.dumps(body)), template, Surroundings()).text).values
    assert isinstance(done, dict)
    return done


def outcomes(body: dict[str, Any], template: Template) -> list[Outcome]:
    return [report.outcome for report in inject(read(json.dumps(body)), template, Surroundings()).reports]


@pytest.mark.parametrize("name", ["native", "policy"])
def test_the_shop_is_taken_and_read_back_as_it_should_be(server: Server, name: str) -> None:
    template, namespace = TEMPLATES[name], server.namespace()
    text = _SHOP.read_text().replace("namespace: shop", f"namespace: {namespace}")
    for body in read(inject(read(text), template, Surroundings()).text).values:
        if body["kind"] == "Namespace":
            continue
        path = _PATHS[body["kind"]].format(namespace)
        answer = server.admin.post(path, body, fieldValidation="Strict")
        assert (answer.status, answer.warnings) == (201, ()), answer.body
        stored = server.admin.get(f"{path}/{body['metadata']['name']}").body
        assert set(outcomes(stored, template)) <= {Outcome.UNCHANGED, Outcome.SKIPPED}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_is_taken_and_taken_out_again_is_as_without(server: Server, name: str) -> None:
    template, namespace = TEMPLATES[name], server.namespace()
    path = f"/api/v1/namespaces/{namespace}/pods"
    answer = server.admin.post(path, injected(_POD, template), fieldValidation="Strict")
    assert (answer.status, answer.warnings) == (201, ()), answer.body
    stored = server.admin.get(f"{path}/web").body
    assert outcomes(stored, template) == [Outcome.UNCHANGED]
    assert outcomes(stored, Template(image="headgate:9.9.9", native=template.native)) == [Outcome.CHANGED]
    (back,) = read(uninject(read(json.dumps(stored))).text).values
    server.admin.made(path, {**_POD, "metadata": {"name": "plain"}})
    plain = server.admin.get(f"{path}/plain").body
    for body in (back, plain):
        body["spec"]["volumes"] = [one for one in body["spec"].get("volumes") or () if "projected" not in one]
        body["spec"]["containers"] = [
            {key: value for key, value in one.items() if key != "volumeMounts"} for one in body["spec"]["containers"]
        ]
    assert back["spec"] == plain["spec"]


@pytest.mark.parametrize("level", ["baseline", "restricted", "privileged"])
def test_pod_security_refuses_what_the_warning_says(server: Server, level: str) -> None:
    namespace = server.namespace({ENFORCED: level})
    warned = refusal(namespace, level)
    assert bool(warned) is (level != "privileged")
    if _REAL:  # the stand-in has no Pod Security
        path = f"/api/v1/namespaces/{namespace}/pods"
        answer = server.admin.post(path, injected(_POD, Template()), dryRun="All")
        assert answer.status == (403 if warned else 201), answer.body
        if warned:
            assert "NET_ADMIN" in answer.message
