"""Pods made at an API server that asks the webhook: over its own TLS, by the configuration that is installed."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from agent.inject.template import INIT, PROXY
from agent.kube.errors import ApiRefused
from agent.webhook.answering import REVIEW_LIMIT
from agent.webhook.certificates import with_new_serving
from agent.webhook.review import Mutation
from agent.webhook.secret import with_certificates
from tests.kube.store import Body
from tests.kube.webhook.running import Cluster, cluster, until


def _in_a_cluster(scenario: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with cluster() as made:
            await scenario(made)

    asyncio.run(whole())


def _pod(name: str = "web", *, label: str | None = None, **spec: Any) -> Body:
    labels = {} if label is None else {"headgate.io/inject": label}
    containers = [{"name": "web", "image": "web:1", "ports": [{"containerPort": 8080}]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": containers, **spec},
    }


def _ours(pod: Mapping[str, Any]) -> list[str]:
    spec = pod["spec"]
    names = [one["name"] for one in (*(spec.get("initContainers") or ()), *spec["containers"])]
    return [name for name in names if name in (INIT, PROXY)]


def test_who_is_injected() -> None:
    """By the namespace's label, by the pod's own; never the cluster's own pods."""

    async def scenario(made: Cluster) -> None:
        async with made.webhook():
            for namespace, label, wanted in [
                ("shop", None, True),
                ("shop", "disabled", False),
                ("shop", "enabled", True),
                ("bare", None, False),
                ("bare", "enabled", True),
                ("kube-system", "enabled", False),
                ("headgate-system", "enabled", False),
            ]:
                pod = await made.make(_pod(f"{namespace}-{label}".lower(), label=label), namespace)
                assert bool(_ours(pod)) is wanted, (namespace, label)

    _in_a_cluster(scenario)


def test_an_injected_pod_given_again_stays_as_it_is() -> None:
    """`kubectl get -o yaml | kubectl create -f -`; and another webhook's change, after which we are asked again."""

    async def scenario(made: Cluster) -> None:
        async with made.webhook():
            first = await made.make(_pod())
            again = await made.make(_pod("again") | {"spec": first["spec"]} | {
                "metadata": {"name": "again", "annotations": first["metadata"]["annotations"]}
            })  # fmt: skip
        assert again["spec"] == first["spec"]

    _in_a_cluster(scenario)


def test_a_dry_run_is_injected_and_nothing_is_kept() -> None:
    async def scenario(made: Cluster) -> None:
        async with made.webhook():
            assert _ours(await made.make(_pod(), query="?dryRun=All")) == [INIT, PROXY]
        assert not made.kinds["Pod"].objects

    _in_a_cluster(scenario)


def test_a_pod_that_cannot_have_a_sidecar_is_refused_with_the_remedy() -> None:
    async def scenario(made: Cluster) -> None:
        taken = [{"name": "web", "image": "web:1", "ports": [{"containerPort": 15001}]}]
        async with made.webhook():
            with pytest.raises(ApiRefused, match=r"namespace\.inject\.headgate\.io.*give it another port"):
                await made.make(_pod(containers=taken))
            assert _ours(await made.make(_pod(hostNetwork=True))) == []

    _in_a_cluster(scenario)


def test_without_the_webhook_no_labelled_pod_is_made_and_others_are() -> None:
    async def scenario(made: Cluster) -> None:
        async with made.webhook():
            await made.make(_pod())
        with pytest.raises(ApiRefused, match="failed calling webhook"):
            await made.make(_pod("later"))
        assert _ours(await made.make(_pod(), "bare")) == []
        assert _ours(await made.make(_pod(label="disabled", name="out"))) == []
        assert _ours(await made.make(_pod(), "headgate-system")) == []  # a webhook's own pod
        async with made.webhook():
            assert _ours(await made.make(_pod("later"))) == [INIT, PROXY]

    _in_a_cluster(scenario)


def test_two_replicas_are_believed_alike() -> None:
    async def scenario(made: Cluster) -> None:
        async with made.webhook(), made.webhook():
            assert _ours(await made.make(_pod())) == [INIT, PROXY]
        assert len(made.held.authorities) == 1

    _in_a_cluster(scenario)


def test_a_renewed_certificate_is_served_without_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.webhook.service.INTERVAL_S", 0.05)

    async def scenario(made: Cluster) -> None:
        async with made.webhook() as replica:
            before = made.held
            renewed = with_new_serving(before, "headgate-webhook.headgate-system.svc", time.time())
            kept = made.kinds["Secret"]
            secret = with_certificates(kept.objects["headgate-system", "headgate-webhook"], renewed)
            made.server.apply(kept, secret, "headgate-system")

            async def serves_the_new_one() -> bool:
                _, writer = await asyncio.open_connection("127.0.0.1", replica.port, ssl=_unverified())
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                writer.close()
                await writer.wait_closed()
                return bool(shown == _der(renewed.serving))

            await until(serves_the_new_one)
            assert _ours(await made.make(_pod())) == [INIT, PROXY]

    _in_a_cluster(scenario)


def _unverified() -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _der(pem: str) -> bytes:
    import ssl

    return ssl.PEM_cert_to_DER_cert(pem)


# ── What else may be sent there ────────────────────────────────────────────────────────────────────────────────────
def _review(pod: Any) -> bytes:
    request = {"uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": pod}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def test_what_is_no_review_gets_its_status_and_a_reason() -> None:
    async def scenario(made: Cluster) -> None:
        async with made.webhook() as replica:
            for body, kind, status, told in [
                (b"{", "application/json", 400, "is no JSON"),
                (b"{}", "application/json", 400, "is no AdmissionReview"),
                (b"x" * (REVIEW_LIMIT + 1), "application/json", 413, "exceeded"),
                (_review({}), "text/plain", 415, "application/json"),
            ]:
                found, text, _ = await made.ask(replica, body, kind)
                assert (found, told in text) == (status, True), text
            status, text = await replica.health("/metrics")
            assert 'headgate_webhook_reviews_total{outcome="malformed"} 2.0' in text
            assert status == 200

    _in_a_cluster(scenario)


_HOSTILE: tuple[Any, ...] = (
    {},
    {"metadata": None, "spec": None},
    {"metadata": [], "spec": {}},
    {"metadata": {"annotations": []}, "spec": {"containers": [{"name": "a"}]}},
    {"metadata": {"annotations": {"headgate.io/injected": "{"}}, "spec": {"containers": [{"name": "a"}]}},
    {"metadata": {"annotations": {"headgate.io/injected": '{"a":1}'}}, "spec": {"containers": [{"name": "a"}]}},
    {"metadata": {"annotations": {"headgate.io/exclude-outbound-ports": "1-99999,\x00"}},
     "spec": {"containers": [{"name": "a"}]}},
    {"metadata": {"labels": {"a": 7}}, "spec": {"containers": [{"name": "a"}]}},
    {"spec": {"containers": "none"}},
    {"spec": {"containers": [7]}},
    {"spec": {"containers": [{"name": "\ud800\x1b"}]}},
    {"spec": {"containers": [{"name": "a", "ports": 7}]}},
    {"spec": {"containers": [{"name": "a", "ports": [7]}]}},
    {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": []}]}]}},
    {"spec": {"containers": [{"name": "a", "securityContext": 7}]}},
    {"spec": {"containers": [{"name": "a"}], "securityContext": {"runAsUser": "root"}}},
    {"spec": {"containers": [{"name": "a"}], "volumes": [{"name": []}]}},
    {"spec": {"containers": [{"name": "a"}], "nodeSelector": 7, "os": []}},
    {"spec": {"containers": [{"name": "a"}], "initContainers": {"a": 1}}},
)  # fmt: skip


@pytest.mark.parametrize("pod", _HOSTILE, ids=range(len(_HOSTILE)))
def test_no_pod_is_answered_with_an_error_of_http(pod: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An API server would ask again, and tell nobody why. No traceback either: each is refused knowingly, or let be."""

    async def scenario(made: Cluster) -> None:
        async with made.webhook() as replica:
            status, text, _ = await made.ask(replica, _review(pod))
            assert status == 200
            response = json.loads(text)["response"]
            assert response["allowed"] or response["status"]["message"].startswith("headgate: ")

    _in_a_cluster(scenario)
    assert "not answered" not in caplog.text


def test_a_fault_of_ours_keeps_the_pod_from_starting_and_is_told() -> None:
    def crashes(pod: Mapping[str, Any], namespace: str) -> Mutation:
        raise KeyError("spec")

    async def scenario(made: Cluster) -> None:
        async with made.webhook(crashes):
            with pytest.raises(ApiRefused, match="please report it: KeyError"):
                await made.make(_pod())

    _in_a_cluster(scenario)


# ── Its end ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_asked_to_end_it_is_not_ready_and_answers_on_for_a_while() -> None:
    async def scenario(made: Cluster) -> None:
        async with made.webhook(linger_s=0.5) as replica:
            replica.stopping.set()

            async def is_leaving() -> bool:
                return not await replica.is_ready()

            await until(is_leaving)
            assert await replica.health("/healthz/ready") == (503, "not ready: leaving\n")
            status, _, connection = await made.ask(replica, _review(_pod()))
            assert (status, connection) == (200, "close")
            await asyncio.wait_for(replica.task, 5)

    _in_a_cluster(scenario)


def test_two_on_one_port_the_second_says_so() -> None:
    from agent.errors import CannotStart

    async def scenario(made: Cluster) -> None:
        async with made.webhook() as replica:
            from agent.kube.access import Access
            from agent.webhook.service import WebhookSettings, run
            from tests.kube.webhook.running import NAMES

            access = Access(made.server.url, None)
            settings = WebhookSettings(access, NAMES, 0, replica.health_port, ("127.0.0.1",))
            with pytest.raises(CannotStart, match=f"port {replica.health_port}: .*in use"):
                await run(settings, made.client, lambda pod, namespace: Mutation(), asyncio.Event())

    _in_a_cluster(scenario)
