"""The two servers of the suite, alike from outside: TLS, client certificates, RBAC, one administrator."""

import asyncio
import itertools
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.kube.access import Access, Credentials, Token
from tests.apiserver.caller import Caller, free_port
from tests.apiserver.cutting import Cutter, cutting
from tests.kube.authority import Authority
from tests.kube.resources import builtins
from tests.kube.standin import StandIn
from tests.kube.store import Store

READY_S: Final = 120.0
"""A kube-apiserver beside a busy machine; alone it takes some 10 s."""
_names = itertools.count(1)


@dataclass
class Server:
    """`forget`: all history up to now, as etcd's compaction does. `cutter`: between everybody and the server."""

    authority: Authority
    cutter: Cutter
    forget: Callable[[], None]
    _callers: dict[tuple[str, str], Caller] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.cutter.url

    @property
    def admin(self) -> Caller:
        return self.by_certificate("administrator", "system:masters")

    def by_certificate(self, name: str, group: str = "") -> Caller:
        if (name, group) not in self._callers:
            signed = self.authority.sign(name, group=group)
            tls = self._believing()
            tls.load_cert_chain(signed.certificate, signed.key)
            self._callers[name, group] = Caller(self.url, tls)
        return self._callers[name, group]

    def by_token(self, token: str) -> Caller:
        return Caller(self.url, self._believing(), token)

    def access(self, credentials: Credentials | None = None, token: str = "") -> Access:
        """For our own client: in whose name."""
        return Access(self.url, credentials or Token(token), self.authority.pem)

    def _believing(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.own.certificate))

    # ── What tests begin with ──────────────────────────────────────────────────────────────────────────────────────
    def namespace(self, labels: dict[str, str] | None = None) -> str:
        """A new one, with the service account that every pod needs."""
        name = f"t-{next(_names)}-{os.getpid()}"
        self.admin.made("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
        self.account(name, "default")
        return name

    def account(self, namespace: str, name: str) -> None:
        self.admin.made(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})

    def token(self, namespace: str, account: str, pod: str = "", seconds: int = 3600) -> str:
        """By TokenRequest; `pod`: bound to it, and by it to its node."""
        bound = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod}} if pod else {}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        given = self.admin.made(path, {"spec": {"expirationSeconds": seconds, **bound}})
        return str(given["status"]["token"])

    def permits(self, namespace: str, account: str, rules: list[dict[str, Any]]) -> None:
        """By a ClusterRole of this account's own. A real server heeds it a moment later."""
        name = f"{namespace}-{account}"
        root = "/apis/rbac.authorization.k8s.io/v1"
        self.admin.made(f"{root}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        self.admin.made(
            f"{root}/clusterrolebindings",
            {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": account}],
            },
        )


# ── The stand-in ───────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def stand_in(authority: Authority) -> Iterator[Server]:
    """On a thread of its own."""
    store = Store()
    for kept in builtins():
        store.serve(kept)
    there = StandIn(store, authority.server(authority.sign("server", "IP:127.0.0.1"), asks=True))
    there.users.strict = True
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stand-in")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(there.up(), loop).result(10)
        with cutting(int(there.url.rsplit(":", 1)[1])) as cutter:
            yield Server(authority, cutter, lambda: _on(loop, store.compact))
    finally:
        asyncio.run_coroutine_threadsafe(there.down(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    async def call() -> None:
        function()

    asyncio.run_coroutine_threadsafe(call(), loop).result(10)


# ── The real one ───────────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def real(program: Path, directory: Path, authority: Authority) -> Iterator[Server]:
    """kube-apiserver with an etcd of its own, both on loopback. `directory`: for its data and logs."""
    with ExitStack() as stack:
        etcd_port = stack.enter_context(_etcd(directory))
        port = free_port()
        log = stack.enter_context((directory / "kube-apiserver.log").open("wb"))
        words = [str(program), *_flags(directory, authority, etcd_port, port)]
        process = stack.enter_context(_running(words, log))
        cutter = stack.enter_context(cutting(port))
        server = Server(authority, cutter, lambda: _compact(etcd_port))
        _wait_ready(server, process, directory / "kube-apiserver.log")
        yield server


@contextmanager
def _etcd(directory: Path) -> Iterator[int]:
    client, peer = free_port(), free_port()
    here, there = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    words = ["etcd", "--name", "one", "--data-dir", str(directory / "etcd"), "--initial-cluster", f"one={there}"]
    words += ["--listen-client-urls", here, "--advertise-client-urls", here]
    words += ["--listen-peer-urls", there, "--initial-advertise-peer-urls", there]
    with (directory / "etcd.log").open("wb") as log, _running(words, log):
        yield client


def _flags(directory: Path, authority: Authority, etcd_port: int, port: int) -> list[str]:
    shown = authority.sign("server", "IP:127.0.0.1")
    accounts = directory / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(accounts), "2048"], check=True, capture_output=True)
    wanted = {
        "etcd-servers": f"http://127.0.0.1:{etcd_port}",
        "etcd-compaction-interval": "0",  # history ends when a test says so
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": directory / "certificates",
        "tls-cert-file": shown.certificate,
        "tls-private-key-file": shown.key,
        "client-ca-file": authority.own.certificate,
        "authorization-mode": "Node,RBAC",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": accounts,
        "service-account-signing-key-file": accounts,
        "service-cluster-ip-range": "10.96.0.0/16",
        "endpoint-reconciler-type": "none",
        "allow-privileged": "true",
    }
    return [f"--{name}={value}" for name, value in wanted.items()]


@contextmanager
def _running(words: list[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s, last = time.monotonic() + READY_S, ""
    while time.monotonic() < end_s and process.poll() is None:
        try:
            answer = server.admin.get("/readyz")
            if answer.status == 200:
                return
            last = str(answer.body)[-300:]
        except OSError as error:
            last = repr(error)
        time.sleep(0.2)
    raise AssertionError(f"kube-apiserver is not ready: {last}; its log ends: {log.read_text('utf-8')[-3000:]}")


def _compact(etcd_port: int) -> None:
    environment = {**os.environ, "ETCDCTL_API": "3"}
    here = ["etcdctl", "--endpoints", f"http://127.0.0.1:{etcd_port}"]
    said = subprocess.run(
        [*here, "get", "/", "--limit", "1", "--write-out", "fields"],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    revision = next(line.split(":")[1].strip() for line in said.stdout.splitlines() if line.startswith('"Revision"'))
    subprocess.run([*here, "compact", revision], check=True, capture_output=True, env=environment)
