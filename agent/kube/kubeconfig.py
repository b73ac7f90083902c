"""kubeconfig files, as kubectl reads them (client-go tools/clientcmd): several are one, the first to name a thing wins.

Nothing here is trusted but by type; a field that cannot be honoured is refused, for to ignore it could mean to talk to
another server, or as somebody else.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from agent.kube.access import Access, ClientCertificate, Credentials, ExecPlugin, Pem, Token
from agent.kube.errors import InvalidAccess
from agent.printable import printable

_EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_REFUSED: Final = {
    "auth-provider": "was removed from Kubernetes 1.26; use an exec plugin",
    "username": "basic authentication was removed from Kubernetes 1.19",
    "as": "impersonation is not supported",
    "proxy-url": "a proxy before the API server is not supported",
}

_ADDRESS: Final = re.compile(r"https?://[\w.:\[\]%-]+(?:/[\w./~:%-]*)?", re.ASCII)
"""Host, port, path (Rancher's servers have one): what the API's paths are put behind. Nobody's name, and no query."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A mapping of the file, with where it stands: for messages, and for what is relative to the file."""

    values: Mapping[str, Any]
    file: Path
    where: str

    def text(self, key: str) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(key, "must be text")
        return value

    def wrong(self, key: str, why: str) -> InvalidAccess:
        return InvalidAccess(f"{self.file}: {printable(self.where)}.{key}: {why}")

    def inside(self, key: str) -> "_Entry":
        value = self.values.get(key) or {}
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a mapping")
        return _Entry(value, self.file, f"{self.where}.{key}")

    def path(self, key: str) -> Path | None:
        """Relative to the file's directory, as kubectl takes it."""
        value = self.text(key)
        return self.file.parent / value if value else None

    def pem(self, data: str, file: str) -> Pem | None:
        """The data count where both are given."""
        encoded, path = self.text(data), self.path(file)
        if not encoded:
            return Pem(file=path) if path else None
        try:
            return Pem(base64.b64decode(encoded, validate=True).decode("ascii"))
        except (binascii.Error, ValueError):
            raise self.wrong(data, "is no base64 of PEM text") from None


def read_kubeconfig(files: Sequence[Path], context: str | None = None) -> Access:
    """The access of `context`, or of the first file's current one. A file that is missing is passed over, unless it is
    the only one. Raises InvalidAccess."""
    entries = [entry for path in files if (entry := _read(path, alone=len(files) == 1)) is not None]
    if not entries:
        raise InvalidAccess(f"no kubeconfig: none of {', '.join(map(str, files))} is there")
    name = context or next((found for entry in entries if (found := entry.text("current-context"))), "")
    if not name:
        raise InvalidAccess(f"{entries[0].file}: current-context: is not set; give --context")
    chosen = _named(entries, "contexts", name).inside("context")
    cluster = _named(entries, "clusters", chosen.text("cluster")).inside("cluster")
    user_name = chosen.text("user")
    user = _named(entries, "users", user_name).inside("user") if user_name else _Entry({}, chosen.file, "user")
    return Access(
        _server(cluster),
        _credentials(user),
        cluster.pem("certificate-authority-data", "certificate-authority"),
        cluster.text("tls-server-name"),
        _insecure(cluster),
        chosen.text("namespace") or "default",
        f"kubeconfig {chosen.file}, context {printable(name)}",
    )


def _read(path: Path, *, alone: bool) -> _Entry | None:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        if alone:
            raise InvalidAccess(f"{path}: is not there") from None
        return None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidAccess(f"{path}: {printable(' '.join(str(error).split()), 300)}") from error
    if not isinstance(found, dict):
        raise InvalidAccess(f"{path}: is no kubeconfig: a mapping is expected")
    return _Entry(found, path, "kubeconfig")


def _named(entries: Sequence[_Entry], kind: str, name: str) -> _Entry:
    for entry in entries:
        listed = entry.values.get(kind) or []
        if not isinstance(listed, list):
            raise entry.wrong(kind, "must be a list")
        for item in listed:
            if isinstance(item, dict) and item.get("name") == name:
                return _Entry(item, entry.file, f"{kind}[{name}]")
    raise InvalidAccess(f"{entries[0].file}: {kind}: has no {printable(repr(name))}")


def _server(cluster: _Entry) -> str:
    server = cluster.text("server")
    _refuse(cluster)
    try:
        parts = urlsplit(server)
        usable = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:  # an IPv6 address that is not closed, a port above 65535
        usable = False
    if not usable or not _ADDRESS.fullmatch(server):
        raise cluster.wrong("server", "must be an https:// address: https://HOST[:PORT]")
    return server.rstrip("/")


def _insecure(cluster: _Entry) -> bool:
    value = cluster.values.get("insecure-skip-tls-verify", False)
    if not isinstance(value, bool):
        raise cluster.wrong("insecure-skip-tls-verify", "must be true or false")
    if value and (cluster.text("certificate-authority") or cluster.text("certificate-authority-data")):
        raise cluster.wrong("insecure-skip-tls-verify", "contradicts the certificate authority beside it")
    return value


def _refuse(entry: _Entry) -> None:
    for key, why in _REFUSED.items():
        if entry.values.get(key):
            raise entry.wrong(key, why)


def _credentials(user: _Entry) -> Credentials:
    """kubectl's order: a token before a certificate's name is known would be another user, so only one kind may be."""
    _refuse(user)
    certificate = user.pem("client-certificate-data", "client-certificate")
    key = user.pem("client-key-data", "client-key")
    if (certificate is None) != (key is None):
        raise user.wrong("client-key" if key is None else "client-certificate", "is missing: both are needed")
    token, token_file = user.text("token"), user.path("tokenFile")
    plugin = user.values.get("exec")
    given = sum((certificate is not None, bool(token or token_file), plugin is not None))
    if given > 1:
        raise InvalidAccess(f"{user.file}: {printable(user.where)}: gives several credentials; keep one")
    if plugin is not None:
        return _plugin(user.inside("exec"))
    if certificate is not None and key is not None:
        return ClientCertificate(certificate, key)
    if token_file is not None:  # it wins over `token`, as in client-go: it may be renewed
        return Token(file=token_file)
    return Token(token) if token else None


def _plugin(entry: _Entry) -> ExecPlugin:
    command, version = entry.text("command"), entry.text("apiVersion")
    if not command:
        raise entry.wrong("command", "is missing")
    if version not in _EXEC_VERSIONS:
        raise entry.wrong("apiVersion", f"must be {' or '.join(_EXEC_VERSIONS)}")
    if entry.text("interactiveMode") == "Always":
        raise entry.wrong("interactiveMode", "Always: nobody can be asked here")
    if "/" in command:
        command = str(entry.file.parent / command)
    arguments = entry.values.get("args") or []
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        raise entry.wrong("args", "must be a list of texts")
    given = entry.values.get("provideClusterInfo", False)
    if not isinstance(given, bool):
        raise entry.wrong("provideClusterInfo", "must be true or false")
    return ExecPlugin(command, tuple(arguments), _environment(entry), version, entry.text("installHint"), given)


def _environment(entry: _Entry) -> tuple[tuple[str, str], ...]:
    listed = entry.values.get("env") or []
    found = []
    for item in listed if isinstance(listed, list) else [None]:
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("name"), str)
            or not isinstance(item.get("value"), str)
        ):
            raise entry.wrong("env", "must be a list of name and value")
        found.append((item["name"], item["value"]))
    return tuple(found)
