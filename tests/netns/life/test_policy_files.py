"""Bad policy files: each is a clear error that names file, object and field, and everything else stays in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab.node import Lab

V4, V6 = "http://10.96.0.10/", "http://[fd96::10]/"


@pytest.fixture(scope="module")
def started() -> Iterator[Lab]:
    with Lab() as made:
        made.start()
        yield made


@pytest.fixture
def lab(started: Lab) -> Iterator[Lab]:
    """What a test writes is taken back: the directory is as it was, and in force."""
    before = {path.name: path.read_text() for path in started.config_directory.iterdir()}
    yield started
    generation = started.policy_in_force()
    now = {path.name: path.read_text() for path in started.config_directory.iterdir()}
    for name, text in before.items():
        if now.get(name) != text:
            (started.config_directory / name).write_text(text)
    for name in now.keys() - before.keys():
        (started.config_directory / name).unlink()
    if now != before:
        started.wait("the first policy", lambda: started.policy_in_force() > generation)


def _ask(lab: Lab, url: str) -> tuple[int, dict[str, str], str]:
    """Status, header fields in lower case, body."""
    answer = lab.pod("client").run(["curl", "-sig", "--max-time", "10", url]).stdout
    head, _, body = answer.partition("\n\n") if "\r\n" not in answer else answer.partition("\r\n\r\n")
    status, *fields = head.splitlines()
    pairs = (field.split(": ", 1) for field in fields)
    return int(status.split()[1]), {name.lower(): value for name, value in pairs}, body


def _rejection(lab: Lab) -> dict[str, Any]:
    (rejection,) = lab.proxy_get("/policy")["rejections"]
    assert f"policy object rejected: {rejection['text']}" in lab.log("proxy")
    return dict(rejection)


def _flags(lab: Lab, flag: str) -> float:
    """Requests with this response flag, as a scrape of the proxy counts them."""
    page = lab.node.run(["curl", "-sf", "http://127.0.0.1:15020/metrics"]).stdout
    lines = (line for line in page.splitlines() if line.startswith("istio_requests_total{"))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'response_flags="{flag}"' in line)


def test_file_that_is_no_yaml_is_named_with_its_line_and_all_others_stay_in_force(lab: Lab) -> None:
    lab.apply_object("broken", "apiVersion: v1\nkind: Service\nmetadata: [\n")
    rejection = _rejection(lab)
    assert rejection["object"] == "file broken.yaml"
    assert rejection["field"].startswith("line 4, column ")
    assert rejection["text"].endswith("correct the file")
    assert [_ask(lab, url)[0] for url in (V4, V6)] == [200, 200]


def test_malformed_object_is_named_with_its_field_and_the_one_beside_it_in_the_file_is_in_force(lab: Lab) -> None:
    lab.apply_object(
        "two",
        """
apiVersion: v1
kind: Service
metadata: {name: bad, namespace: default}
spec: {clusterIP: 10.96.0.20, ports: [{name: http, port: 70000}]}
---
apiVersion: v1
kind: Service
metadata: {name: good, namespace: default}
spec: {clusterIP: 10.96.0.21, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: good, namespace: default, labels: {kubernetes.io/service-name: good}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: ["@web-v1.address4@"], conditions: {ready: true}}]
""",
    )
    rejection = _rejection(lab)
    assert rejection["object"] == "Service default/bad"
    assert "port" in rejection["field"]
    assert "70000" in rejection["reason"]
    assert [_ask(lab, url)[0] for url in (V4, V6, "http://10.96.0.21/")] == [200, 200, 200]


def test_route_that_becomes_malformed_keeps_its_last_good_version_and_says_so(lab: Lab) -> None:
    lab.apply_object(
        "split",
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v1}, weight: ninety}]}]}
""",
    )
    rejection = _rejection(lab)
    assert (rejection["object"], rejection["stale"]) == ("VirtualService default/web", True)
    assert "weight" in rejection["field"] and "ninety" in rejection["reason"]
    assert [_ask(lab, url)[0] for url in (V4, V6)] == [200, 200]


def test_subset_that_nobody_defines_answers_503_nc_with_the_objects_to_correct(lab: Lab) -> None:
    before = _flags(lab, "NC")
    lab.apply_object(
        "split",
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v9}}]}]}
""",
    )
    for url in (V4, V6):
        status, fields, body = _ask(lab, url)
        assert status == 503
        assert fields["headgate-error"].startswith("NC VirtualService default/web routes to subset v9 of web.default")
        assert "add the subset to a DestinationRule" in body
    assert _flags(lab, "NC") == before + 2


def test_service_without_endpoints_answers_503_uh(lab: Lab) -> None:
    before = _flags(lab, "UH")
    lab.apply_object(
        "empty",
        """
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: default}
spec: {clusterIP: 10.96.0.30, clusterIPs: [10.96.0.30, "fd96::30"], ports: [{name: http, port: 80}]}
""",
    )
    for url in ("http://10.96.0.30/", "http://[fd96::30]/"):
        status, fields, _ = _ask(lab, url)
        assert (status, fields["headgate-error"].split()[0]) == (503, "UH")
        assert "empty" in fields["headgate-error"]
    assert _flags(lab, "UH") == before + 2


def test_upstream_that_refuses_answers_503_uf_after_its_retries(lab: Lab) -> None:
    """Nobody listens on 8099: the endpoint's own proxy is met, and it too finds nobody."""
    lab.apply_object(
        "refusing",
        """
apiVersion: v1
kind: Service
metadata: {name: refusing, namespace: default}
spec: {clusterIP: 10.96.0.40, ports: [{name: http, port: 80, targetPort: 8099}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: refusing, namespace: default, labels: {kubernetes.io/service-name: refusing}}
addressType: IPv4
ports: [{name: http, port: 8099}]
endpoints: [{addresses: ["@web-v1.address4@"], conditions: {ready: true}}]
""",
    )
    status, fields, _ = _ask(lab, "http://10.96.0.40/")
    assert (status, fields["headgate-error"].split()[0].split(",")[0]) == (503, "UF")
    assert "8099" in fields["headgate-error"]
    assert _ask(lab, V4)[0] == 200
