"""Replicas of the webhook and one API server: whose certificates they serve, whom API servers are told to believe."""

import asyncio
import base64
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from agent.kube.access import Access
from agent.kube.client import ApiClient
from agent.webhook.certificates import Certificates, fresh, read
from agent.webhook.keeper import Keeper, Names
from agent.webhook.rotation import DAY_S, OVERLAP_S
from agent.webhook.secret import held_in, with_certificates
from tests.kube.manifests.rendered import documents, of_kind
from tests.kube.standin import StandIn
from tests.kube.store import Body, Kept, Store

_NAMES = Names("headgate-system", "headgate-webhook", "headgate-webhook", "headgate-webhook.headgate-system.svc")
_KEY = ("headgate-system", "headgate-webhook")
_FIRST_S = 1_800_000_000.0


@dataclass
class Shown:
    """Beside agent.webhook.keeper.Serving: what was loaded, in order."""

    certificates: list[str] = field(default_factory=list)

    def load(self, certificate: str, key: str) -> None:
        assert "PRIVATE KEY" in key
        self.certificates.append(certificate)


@dataclass
class Replica:
    keeper: Keeper
    shown: Shown
    client: ApiClient

    @property
    def serving(self) -> str:
        return self.shown.certificates[-1]


@dataclass
class Cluster:
    """A stand-in that holds what `headgate install --webhook` applies."""

    server: StandIn
    secrets: Kept
    configurations: Kept
    now_s: float = _FIRST_S
    replicas: list[Replica] = field(default_factory=list)

    def replica(self) -> Replica:
        client = ApiClient(Access(self.server.url, None), lambda: self.now_s, lambda: self.now_s)
        shown = Shown()
        made = Replica(Keeper(client, _NAMES, shown, lambda: self.now_s), shown, client)
        self.replicas.append(made)
        return made

    @property
    def held(self) -> Certificates | None:
        return held_in(self.secrets.objects[_KEY])

    @property
    def believed(self) -> list[str]:
        """By each webhook of the configuration."""
        webhooks = self.configurations.objects["", "headgate-webhook"]["webhooks"]
        return [base64.b64decode(one["clientConfig"].get("caBundle", "")).decode() for one in webhooks]

    def put(self, held: Certificates) -> None:
        self.server.apply(self.secrets, with_certificates(_secret(), held), "headgate-system")

    def configure(self) -> None:
        self.server.apply(self.configurations, _configuration())


def _secret() -> Body:
    return {"metadata": {"name": "headgate-webhook"}, "type": "Opaque"}


def _configuration() -> Body:
    (body,) = of_kind(documents("webhook"), "MutatingWebhookConfiguration")
    return copy.deepcopy(body)


def _in_a_cluster(scenario: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        store = Store()
        group = "admissionregistration.k8s.io"
        secrets = store.serve(Kept("", "v1", "Secret", "secrets"))
        kind = "MutatingWebhookConfiguration"
        configurations = store.serve(Kept(group, "v1", kind, f"{kind.lower()}s", namespaced=False))
        async with StandIn(store).serving() as server:
            cluster = Cluster(server, secrets, configurations)
            server.apply(secrets, _secret(), "headgate-system")
            cluster.configure()
            try:
                await scenario(cluster)
            finally:
                for replica in cluster.replicas:
                    await replica.client.close()

    asyncio.run(whole())


def test_the_first_one_makes_what_all_serve() -> None:
    async def scenario(cluster: Cluster) -> None:
        replica = cluster.replica()
        assert not replica.keeper.standing.ready(cluster.now_s)
        assert await replica.keeper.look()
        held = cluster.held
        assert held is not None
        assert replica.serving == held.serving
        assert cluster.believed == [held.bundle] * 2
        assert replica.keeper.standing.ready(cluster.now_s)
        assert replica.keeper.serves.is_set()

    _in_a_cluster(scenario)


def test_three_that_begin_together_agree() -> None:
    async def scenario(cluster: Cluster) -> None:
        replicas = [cluster.replica() for _ in range(3)]
        assert await asyncio.gather(*(one.keeper.look() for one in replicas)) == [True] * 3
        held = cluster.held
        assert held is not None
        assert {one.serving for one in replicas} == {held.serving}
        assert cluster.believed == [held.bundle] * 2

    _in_a_cluster(scenario)


def test_when_nothing_is_due_nothing_is_written() -> None:
    async def scenario(cluster: Cluster) -> None:
        replica = cluster.replica()
        await replica.keeper.look()
        version = cluster.server.store.version
        for _ in range(3):
            assert await replica.keeper.look()
        assert cluster.server.store.version == version
        assert len(replica.shown.certificates) == 1

    _in_a_cluster(scenario)


def test_in_one_and_a_half_years_nothing_is_served_that_is_not_believed() -> None:
    """One replica looks each fifth day, the other one every tenth; a look is ten seconds in truth."""

    async def scenario(cluster: Cluster) -> None:
        often, seldom = cluster.replica(), cluster.replica()
        authorities = set()
        for day in (whole + part for whole in range(0, 560, 5) for part in (0.0, 0.1)):  # before the overlap, and after
            cluster.now_s = _FIRST_S + day * DAY_S
            assert await often.keeper.look()
            if day % 10 < 1:
                assert await seldom.keeper.look()
            held = cluster.held
            assert held is not None
            authorities |= set(held.authorities)
            for replica in (often, seldom):
                assert replica.keeper.standing.ready(cluster.now_s), day
                assert _is_believed(replica.serving, held.authorities), day
            assert cluster.believed == [held.bundle] * 2
        assert len(authorities) == 3
        assert len(often.shown.certificates) == pytest.approx(560 / 20, abs=5)

    _in_a_cluster(scenario)


def _is_believed(serving: str, authorities: tuple[str, ...]) -> bool:
    def signed(by: x509.Certificate) -> bool:
        try:
            x509.load_pem_x509_certificate(serving.encode()).verify_directly_issued_by(by)
        except InvalidSignature:
            return False
        return True

    return any(signed(x509.load_pem_x509_certificate(one.encode())) for one in authorities)


def test_a_new_authority_signs_only_after_an_hour() -> None:
    async def scenario(cluster: Cluster) -> None:
        replica = cluster.replica()
        await replica.keeper.look()
        cluster.now_s = _FIRST_S + 276 * DAY_S
        await replica.keeper.look()  # the certificate had ended long ago: signed at once, by the old authority
        signed = replica.serving
        held = cluster.held
        assert held is not None
        assert (len(held.authorities), read(held).signer) == (2, 1)
        cluster.now_s += OVERLAP_S + 1
        await replica.keeper.look()
        held = cluster.held
        assert held is not None
        assert read(held).signer == 0
        assert replica.serving != signed

    _in_a_cluster(scenario)


def test_certificates_that_ended_while_nothing_ran_are_noticed_and_renewed() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.put(fresh(_NAMES.host, _FIRST_S - 800 * DAY_S))
        replica = cluster.replica()
        assert await replica.keeper.look()
        assert replica.keeper.standing.ready(cluster.now_s)
        held = cluster.held
        assert held is not None
        assert len(held.authorities) == 1

    _in_a_cluster(scenario)


def test_a_certificate_that_ends_while_the_api_server_is_away_is_told_and_not_ready() -> None:
    async def scenario(cluster: Cluster) -> None:
        replica = cluster.replica()
        await replica.keeper.look()
        cluster.server.faults.refuse = {"secrets": 503}
        cluster.now_s += 25 * DAY_S
        assert not await replica.keeper.look()
        standing = replica.keeper.standing
        assert standing.ready(cluster.now_s)
        assert "503" in standing.problem
        cluster.now_s += 6 * DAY_S
        assert not replica.keeper.standing.ready(cluster.now_s)
        cluster.server.faults.refuse = {}
        assert await replica.keeper.look()
        assert replica.keeper.standing.ready(cluster.now_s)
        assert replica.keeper.standing.problem == ""

    _in_a_cluster(scenario)


def test_a_configuration_that_was_overwritten_is_told_again() -> None:
    """`kubectl replace`, a GitOps controller."""

    async def scenario(cluster: Cluster) -> None:
        replica = cluster.replica()
        await replica.keeper.look()
        cluster.configure()
        assert cluster.believed == ["", ""]
        await replica.keeper.look()
        held = cluster.held
        assert held is not None
        assert cluster.believed == [held.bundle] * 2

    _in_a_cluster(scenario)


def test_a_missing_configuration_is_told_and_not_ready() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.server.delete(cluster.configurations, "headgate-webhook")
        replica = cluster.replica()
        await replica.keeper.look()
        standing = replica.keeper.standing
        assert not standing.ready(cluster.now_s)
        assert "headgate install --webhook" in standing.problem
        cluster.configure()
        await replica.keeper.look()
        assert replica.keeper.standing.ready(cluster.now_s)

    _in_a_cluster(scenario)


def test_a_missing_secret_is_told_with_the_remedy_and_taken_up_when_it_is_there() -> None:
    """It may not make one: no rule can allow that for one name only."""

    async def scenario(cluster: Cluster) -> None:
        cluster.server.delete(cluster.secrets, "headgate-webhook", "headgate-system")
        replica = cluster.replica()
        assert not await replica.keeper.look()
        assert "headgate install --webhook" in replica.keeper.standing.problem
        cluster.server.apply(cluster.secrets, _secret(), "headgate-system")
        assert await replica.keeper.look()
        assert replica.keeper.standing.ready(cluster.now_s)

    _in_a_cluster(scenario)


@pytest.mark.parametrize("refused", ["secrets", "mutatingwebhookconfigurations"])
def test_what_may_not_be_read_is_named(refused: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.server.faults.refuse = {refused: 403}
        replica = cluster.replica()
        assert not await replica.keeper.look()
        assert "403 Forbidden" in replica.keeper.standing.problem
        assert not replica.keeper.standing.ready(cluster.now_s)

    _in_a_cluster(scenario)


def test_a_broken_secret_is_made_anew_and_others_stay_believed() -> None:
    async def scenario(cluster: Cluster) -> None:
        first = cluster.replica()
        await first.keeper.look()
        before = cluster.held
        assert before is not None
        broken = with_certificates(_secret(), before)
        broken["data"]["tls.key"] = base64.b64encode(b"overwritten").decode()
        cluster.server.apply(cluster.secrets, broken, "headgate-system")
        second = cluster.replica()
        assert await second.keeper.look()
        assert second.serving != first.serving
        assert before.authorities[0] in cluster.believed[0]  # by which the first one still serves
        await first.keeper.look()
        assert first.serving == second.serving

    _in_a_cluster(scenario)


def test_no_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(cluster: Cluster) -> None:
        with caplog.at_level("DEBUG"):
            await cluster.replica().keeper.look()
        held = cluster.held
        assert held is not None
        assert "certificates renewed: there were none" in caplog.text
        assert "PRIVATE" not in caplog.text
        assert cluster.secrets.objects[_KEY]["data"]["ca.key"] not in caplog.text

    _in_a_cluster(scenario)
