"""Who the agent is at the API server: kubeconfig files, a pod's own account, tokens that are renewed, plugins."""

import asyncio
import base64
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.kube.access import Access, ClientCertificate, ExecPlugin, Pem, Token
from agent.kube.client import ApiClient
from agent.kube.credentials import REREAD_S
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.kube.incluster import in_cluster
from agent.kube.kubeconfig import read_kubeconfig
from tests.kube.heard import named, pods
from tests.kube.standin import StandIn
from tests.kube.store import Store

LIST = "/api/v1/pods"


def config(directory: Path, user: str, cluster: str = "server: https://10.0.0.1:6443", name: str = "config") -> Path:
    path = directory / name
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
        f"clusters: [{{name: c, cluster: {{{cluster}}}}}]\n"
        f"users: [{{name: u, user: {{{user}}}}}]\n"
        "contexts: [{name: here, context: {cluster: c, user: u, namespace: shop}}]\n"
    )
    return path


# ── kubeconfig ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_token_and_the_clusters_authority(tmp_path: Path) -> None:
    ca = base64.b64encode(b"PEM").decode()
    path = config(tmp_path, "token: secret", f"server: https://10.0.0.1:6443/, certificate-authority-data: {ca}")
    found = read_kubeconfig((path,))
    assert (found.server, found.credentials, found.ca, found.namespace) == (
        "https://10.0.0.1:6443",
        Token("secret"),
        Pem("PEM"),
        "shop",
    )


@pytest.mark.parametrize("server", ["https://[fd00::1]:6443", "http://localhost", "https://rancher.x/k8s/clusters/c-1"])
def test_an_address_of_every_kind(tmp_path: Path, server: str) -> None:
    assert read_kubeconfig((config(tmp_path, "token: a", f"server: '{server}/'"),)).server == server


def test_files_are_relative_to_the_kubeconfig_and_a_tokens_file_wins_over_the_token(tmp_path: Path) -> None:
    found = read_kubeconfig((config(tmp_path, "token: old, tokenFile: run/token"),))
    assert found.credentials == Token(file=tmp_path / "run/token")
    found = read_kubeconfig((config(tmp_path, "client-certificate: me.crt, client-key: /etc/me.key"),))
    assert found.credentials == ClientCertificate(Pem(file=tmp_path / "me.crt"), Pem(file=Path("/etc/me.key")))


def test_of_several_files_the_first_to_name_a_thing_wins(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.write_text("current-context: here\nusers: [{name: u, user: {token: first}}]\n")
    second = config(tmp_path, "token: second")
    assert read_kubeconfig((tmp_path / "missing", first, second)).credentials == Token("first")


def test_a_plugin_with_its_words(tmp_path: Path) -> None:
    told = (
        "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./give, args: [token, --now], "
        "env: [{name: REGION, value: eu}], installHint: install it, interactiveMode: Never}"
    )
    plugin = read_kubeconfig((config(tmp_path, told),)).credentials
    assert isinstance(plugin, ExecPlugin)
    assert (plugin.command, plugin.arguments) == (str(tmp_path / "give"), ("token", "--now"))
    assert plugin.environment == (("REGION", "eu"),)


@pytest.mark.parametrize(
    ("user", "cluster", "reason"),
    [
        ("token: a", "server: 10.0.0.1", "clusters[c].cluster.server: must be an https:// address"),
        ("token: a", "server: https://x, proxy-url: http://y", "proxy-url: a proxy before the API server"),
        ("username: u, password: p", "server: https://x", "username: basic authentication was removed"),
        ("auth-provider: {name: gcp}", "server: https://x", "auth-provider: was removed"),
        ("as: root", "server: https://x", "as: impersonation is not supported"),
        ("client-key-data: c2VjcmV0", "server: https://x", "client-certificate: is missing: both are needed"),
        ("client-certificate-data: '%'", "server: https://x", "client-certificate-data: is no base64"),
        ("token: a, exec: {command: c, apiVersion: client.authentication.k8s.io/v1}", "server: https://x", "several"),
        ("exec: {command: c, apiVersion: v1alpha1}", "server: https://x", "exec.apiVersion: must be"),
        ("exec: {apiVersion: client.authentication.k8s.io/v1}", "server: https://x", "exec.command: is missing"),
        ("token: [a]", "server: https://x", "users[u].user.token: must be text"),
        *(
            ("token: a", f"server: '{server}'", "clusters[c].cluster.server: must be an https:// address")
            for server in (
                "",
                "5",
                "x:6443",
                "ftp://x",
                "https://",
                "http://[::1",
                "https://x:99999",
                "https://a b",
                "https://me:secret@x",
                "https://x?a=b",
                "https://x/a#b",
            )
        ),
        (
            "token: a",
            "server: https://x, insecure-skip-tls-verify: true, certificate-authority: ca",
            "contradicts the certificate authority",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_file_and_field(
    tmp_path: Path, user: str, cluster: str, reason: str
) -> None:
    path = config(tmp_path, user, cluster)
    with pytest.raises(InvalidAccess) as refused:
        read_kubeconfig((path,))
    assert str(path) in str(refused.value)
    assert reason in str(refused.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    path = config(tmp_path, "token: a")
    for files, context, reason in (
        ((path,), "other", "contexts: has no 'other'"),
        ((tmp_path / "no",), None, "is not there"),
        ((tmp_path / "no", tmp_path / "nor"), None, "no kubeconfig: none of"),
    ):
        with pytest.raises(InvalidAccess, match=reason):
            read_kubeconfig(files, context)
    path.write_text("{")
    with pytest.raises(InvalidAccess, match="config: "):
        read_kubeconfig((path,))


# ── In a pod ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_pods_own_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("c")
    (tmp_path / "namespace").write_text("headgate\n")
    found = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert (found.server, found.namespace) == ("https://[fd00::1]:443", "headgate")
    assert found.credentials == Token(file=tmp_path / "token")


def test_outside_a_pod_and_without_a_mounted_account_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidAccess, match="give --kubeconfig"):
        in_cluster({}, tmp_path)
    with pytest.raises(InvalidAccess, match="automountServiceAccountToken"):
        in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)


# ── At the server ──────────────────────────────────────────────────────────────────────────────────────────────────
class Clock:
    now_s = 1000.0


async def lists(client: ApiClient) -> Any:
    return await client.get(LIST)


def test_a_renewed_token_is_taken_up_within_a_minute_and_at_once_when_it_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, clock, file = Store(), Clock(), tmp_path / "token"
        store.create(pods(store), "default", named("a"))
        async with StandIn(store).serving() as server:
            server.faults.token = "first"
            file.write_text("first\n")
            client = ApiClient(Access(server.url, Token(file=file)), lambda: clock.now_s, lambda: clock.now_s)
            try:
                await lists(client)
                file.write_text("second")
                await lists(client)  # the old one still holds
                clock.now_s += REREAD_S
                with pytest.raises(ApiRefused, match="401"):
                    await lists(client)
                server.faults.token = "second"
                await lists(client)
                server.faults.token = "third"
                file.write_text("third")
                with pytest.raises(ApiRefused, match="401"):
                    await lists(client)
                await lists(client)
            finally:
                await client.close()

    asyncio.run(scenario())


def plugin(tmp_path: Path, says: str, status: int = 0) -> ExecPlugin:
    """A program that counts its runs."""
    path = tmp_path / "give"
    path.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\ncat <<'END'\n{says}\nEND\necho why >&2\nexit {status}\n")
    path.chmod(0o755)
    return ExecPlugin(str(path), (), (), "client.authentication.k8s.io/v1", "get it from the vendor")


def credential(**status: str) -> str:
    return json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})


def test_a_plugins_token_is_used_until_shortly_before_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, clock = Store(), Clock()
        pods(store)
        async with StandIn(store).serving() as server:
            server.faults.token = "given"
            given = plugin(tmp_path, credential(token="given", expirationTimestamp="1970-01-01T00:17:40Z"))  # 1060 s
            client = ApiClient(Access(server.url, given), lambda: clock.now_s, lambda: clock.now_s)
            try:
                await asyncio.gather(lists(client), lists(client))
                clock.now_s = 1049.0
                await lists(client)
                assert (tmp_path / "runs").read_text().count("run") == 1
                clock.now_s = 1050.0
                await lists(client)
                assert (tmp_path / "runs").read_text().count("run") == 2
            finally:
                await client.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("says", "status", "reason"),
    [
        ("nothing", 0, "no ExecCredential"),
        ("{}", 0, "no ExecCredential"),
        (credential(), 0, "neither a token nor a certificate"),
        ("", 3, "exit status 3: why"),
    ],
)
def test_a_plugin_that_fails_is_tried_again_and_told(tmp_path: Path, says: str, status: int, reason: str) -> None:
    async def scenario() -> None:
        client = ApiClient(Access("http://127.0.0.1:1", plugin(tmp_path, says, status)), lambda: 0.0, lambda: 0.0)
        with pytest.raises(CannotReach, match=reason):
            await lists(client)

    asyncio.run(scenario())


def test_a_plugin_that_is_not_installed_is_told_with_its_hint(tmp_path: Path) -> None:
    async def scenario() -> None:
        missing = ExecPlugin(str(tmp_path / "no"), (), (), "client.authentication.k8s.io/v1", "get it from the vendor")
        client = ApiClient(Access("http://127.0.0.1:1", missing), lambda: 0.0, lambda: 0.0)
        with pytest.raises(InvalidAccess, match="get it from the vendor"):
            await lists(client)

    asyncio.run(scenario())


def test_a_redirect_is_not_followed_for_the_token_would_go_along() -> None:
    async def scenario() -> None:
        from aiohttp import web

        asked: list[str] = []

        async def answer(request: web.Request) -> web.Response:
            asked.append(request.path)
            return web.Response(status=302, headers={"Location": "/elsewhere"})

        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = ApiClient(Access(f"http://127.0.0.1:{runner.addresses[0][1]}", Token("t")), lambda: 0.0, lambda: 0.0)
        try:
            with pytest.raises(ApiRefused, match="302"):
                await lists(client)
            assert asked == [LIST]
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(scenario())


def test_nothing_of_the_environment_leads_the_token_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        store = Store()
        pods(store)
        async with StandIn(store).serving() as server:
            client = ApiClient(Access(server.url, Token("t")), lambda: 0.0, lambda: 0.0)
            try:
                await lists(client)
            finally:
                await client.close()

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")
    asyncio.run(scenario())


def test_a_server_that_has_gone_without_a_word_is_noticed_within_thirty_seconds() -> None:
    """A watch may be silent for minutes, so the kernel asks: nothing else tells a dead connection from a quiet one."""

    async def scenario() -> None:
        store = Store()
        pods(store)
        async with StandIn(store).serving() as server:
            client = ApiClient(Access(server.url, None), lambda: 0.0, lambda: 0.0)
            try:
                async with client.streaming(LIST, {"watch": "true"}) as content:
                    held = content._protocol.transport.get_extra_info("socket")
                    keepalive = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                    idle, every, times = (held.getsockopt(socket.IPPROTO_TCP, option) for option in keepalive)
                    assert held.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                    assert idle + every * times <= 30
                    assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            finally:
                await client.close()

    asyncio.run(scenario())


def test_a_server_that_refuses_is_told_with_its_address_once() -> None:
    """As people read it in `headgate check`: without what the HTTP library has to say of itself."""

    async def scenario() -> None:
        with socket.socket() as taken:  # bound and not listening
            taken.bind(("127.0.0.1", 0))
            server = f"http://127.0.0.1:{taken.getsockname()[1]}"
            client = ApiClient(Access(server, None), lambda: 0.0, lambda: 0.0)
            try:
                with pytest.raises(CannotReach) as told:
                    await client.get(LIST)
            finally:
                await client.close()
        assert str(told.value) == f"{server}: Connection refused"

    asyncio.run(scenario())
