"""The API server over real TLS: whose certificate is believed, and who we say that we are."""

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.kube.access import Access, Credentials, ExecPlugin, Token
from agent.kube.client import ApiClient
from agent.kube.credentials import REREAD_S
from agent.kube.errors import CannotReach, InvalidAccess
from agent.kube.kubeconfig import read_kubeconfig
from tests.kube.authority import Authority, Signed, authority
from tests.kube.heard import named, pods
from tests.kube.standin import StandIn
from tests.kube.store import Store

LIST = "/api/v1/pods"
VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def server(ca: Authority) -> Signed:
    return ca.sign("api", "IP:127.0.0.1,DNS:api.example")


class Clock:
    now_s = 1000.0


def at(
    tls: ssl.SSLContext, scenario: Callable[[StandIn, Callable[[Access], ApiClient], Clock], Coroutine[Any, Any, None]]
) -> None:
    """The scenario with a server, and clients of it that are closed."""

    async def whole() -> None:
        store, clock, clients = Store(), Clock(), list[ApiClient]()
        store.create(pods(store), "default", named("a"))

        def client(access: Access) -> ApiClient:
            clients.append(ApiClient(access, lambda: clock.now_s, lambda: clock.now_s))
            return clients[-1]

        async with StandIn(store, tls).serving() as there:
            try:
                await scenario(there, client, clock)
            finally:
                for one in clients:
                    await one.close()

    asyncio.run(whole())


def test_a_server_of_the_clusters_authority_is_believed_and_no_other(
    ca: Authority, server: Signed, tmp_path: Path
) -> None:
    other = authority(tmp_path / "other")

    async def scenario(there: StandIn, client: Callable[[Access], ApiClient], clock: Clock) -> None:
        there.faults.token = "t"
        assert (await client(Access(there.url, Token("t"), ca.pem)).get(LIST))["items"]
        for wrong in (Access(there.url, Token("t"), other.pem), Access(there.url, Token("t"))):
            with pytest.raises(CannotReach, match="CERTIFICATE_VERIFY_FAILED"):
                await client(wrong).get(LIST)
        assert len(there.asked) == 1, "nobody else was told the token"
        assert (await client(Access(there.url, Token("t"), insecure=True)).get(LIST))["items"]

    at(ca.server(server), scenario)


def test_the_certificates_name_may_be_another_than_the_hosts(ca: Authority, tmp_path: Path) -> None:
    named_only = ca.sign("named", "DNS:api.example")

    async def scenario(there: StandIn, client: Callable[[Access], ApiClient], clock: Clock) -> None:
        with pytest.raises(CannotReach, match="IP address mismatch"):
            await client(Access(there.url, None, ca.pem)).get(LIST)
        assert (await client(Access(there.url, None, ca.pem, "api.example")).get(LIST))["items"]

    at(ca.server(named_only), scenario)


def test_a_client_certificate_of_a_kubeconfig_in_files_or_in_it(ca: Authority, server: Signed, tmp_path: Path) -> None:
    me = ca.sign("me")
    data = {
        name: base64.b64encode(path.read_bytes()).decode()
        for name, path in (("certificate", me.certificate), ("key", me.key), ("authority", ca.own.certificate))
    }

    def config(user: str, url: str) -> Path:
        path = tmp_path / "config"
        path.write_text(
            "current-context: here\n"
            f"clusters: [{{name: c, cluster: {{server: '{url}', certificate-authority-data: {data['authority']}}}}}]\n"
            f"users: [{{name: u, user: {{{user}}}}}]\n"
            "contexts: [{name: here, context: {cluster: c, user: u}}]\n"
        )
        return path

    async def scenario(there: StandIn, client: Callable[[Access], ApiClient], clock: Clock) -> None:
        for user in (
            f"client-certificate: {me.certificate}, client-key: {me.key}",
            f"client-certificate-data: {data['certificate']}, client-key-data: {data['key']}",
        ):
            assert (await client(read_kubeconfig((config(user, there.url),))).get(LIST))["items"]
        with pytest.raises(CannotReach):
            await client(read_kubeconfig((config("token: t", there.url),))).get(LIST)

    at(ca.server(server, clients=True), scenario)


def test_a_renewed_client_certificate_is_taken_up_within_a_minute(
    ca: Authority, server: Signed, tmp_path: Path
) -> None:
    other = authority(tmp_path / "other")
    held = Signed(tmp_path / "me.crt", tmp_path / "me.key")

    def become(by: Authority, name: str) -> None:
        signed = by.sign(name)
        for target, source in ((held.certificate, signed.certificate), (held.key, signed.key)):
            target.write_bytes(source.read_bytes())

    async def scenario(there: StandIn, client: Callable[[Access], ApiClient], clock: Clock) -> None:
        asking = client(Access(there.url, held.client(), ca.pem))
        with pytest.raises(CannotReach):
            await asking.get(LIST)
        become(ca, "renewed")
        clock.now_s += REREAD_S
        assert (await asking.get(LIST))["items"]
        held.key.write_text("half a key")
        assert (await asking.get(LIST))["items"], "not before the minute is over"
        clock.now_s += REREAD_S
        with pytest.raises(InvalidAccess, match="certificate or key"):
            await asking.get(LIST)
        become(ca, "again")
        assert (await asking.get(LIST))["items"]

    become(other, "stranger")
    at(ca.server(server, clients=True), scenario)


def test_a_plugin_may_give_a_certificate(ca: Authority, server: Signed, tmp_path: Path) -> None:
    me = ca.sign("by-plugin")
    status = {"clientCertificateData": me.certificate.read_text(), "clientKeyData": me.key.read_text()}
    (tmp_path / "said").write_text(json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status}))
    program = tmp_path / "give"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
    program.chmod(0o755)
    given: Credentials = ExecPlugin(str(program), (), (), VERSION)

    async def scenario(there: StandIn, client: Callable[[Access], ApiClient], clock: Clock) -> None:
        assert (await client(Access(there.url, given, ca.pem)).get(LIST))["items"]
        (tmp_path / "said").write_text(
            json.dumps({"apiVersion": VERSION, "status": {**status, "clientCertificateData": "none"}})
        )
        with pytest.raises(InvalidAccess, match="certificate or key"):
            await client(Access(there.url, given, ca.pem)).get(LIST)

    at(ca.server(server, clients=True), scenario)
