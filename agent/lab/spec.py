"""What a lab holds: pods, their server processes and the Kubernetes objects, read from one YAML file.

Values and their validation; nothing here touches the kernel. Addresses follow from a pod's place in the list, so that
a file is readable without a machine: the n-th pod (from 0) is 10.77.0.(n+2) and fd77::(n+2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

import yaml

from agent.lab.errors import LabError

NODE_ADDRESS4: Final = IPv4Address("10.77.0.1")
NODE_ADDRESS6: Final = IPv6Address("fd77::1")
PREFIX4: Final = 24
PREFIX6: Final = 64
MOST_PODS: Final = 253
"""10.77.0.2 to 10.77.0.254: what the node's /24 leaves."""

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label, as Kubernetes names are
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]{0,127}")
_NODE: Final = "node"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server process of a pod. `files` are (name, text), written to its directory before it starts; `ports` are
    the TCP ports that must accept before the lab is up. @pod@, @directory@, @address4@, @address6@ stand for the pod's
    own in both texts and command."""

    name: str
    command: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PodSpec:
    """One pod. It is enrolled unless labelled `headgate.io/mesh: disabled`. `families`: 4, 6 or both. Of one that is
    not `listed` the agent is not told: it holds rules of somebody else's, which the agent would take for its own."""

    name: str
    namespace: str = "default"
    service_account: str = "default"
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    families: tuple[int, ...] = (4, 6)
    servers: tuple[ServerSpec, ...] = ()
    listed: bool = True


@dataclass(frozen=True, slots=True)
class LabSpec:
    """A whole lab. `objects` are YAML files of Kubernetes objects; in them @POD.address4@ and @POD.address6@ stand for
    a pod's addresses."""

    pods: tuple[PodSpec, ...]
    objects: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        names = [pod.name for pod in self.pods]
        if len(names) > MOST_PODS:
            raise LabError(f"a lab holds at most {MOST_PODS} pods (its node's /24), not {len(names)}")
        for name in names:
            if not _DNS_LABEL.fullmatch(name) or name == _NODE:
                raise LabError(f"pod name {name!r}: need a DNS label (RFC 1123) other than {_NODE!r}")
            if names.count(name) > 1:
                raise LabError(f"pod name {name!r} is given twice; a lab has one namespace per name")


def address4(index: int) -> IPv4Address:
    """IPv4 address of the pod at this place of the list."""
    return NODE_ADDRESS4 + 1 + index


def address6(index: int) -> IPv6Address:
    """IPv6 address of the pod at this place of the list."""
    return NODE_ADDRESS6 + 1 + index


def default_spec() -> LabSpec:
    """client, web-v1, web-v2, the Service `web` and its split 90/10."""
    return load_spec(Path(str(resources.files("agent.lab") / "default.yaml")))


def load_spec(path: Path) -> LabSpec:
    """Reads a lab file; raises LabError naming file, entry and field."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; give the path of a lab file to -f") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: not YAML: {error}") from error
    top = _Fields(str(path), document)
    pods = tuple(_pod(entry) for entry in top.entries("pods"))
    objects = tuple(file for name in top.texts("objects") for file in _object_files(path, name))
    top.done()
    return LabSpec(pods, objects)


def _object_files(spec: Path, name: str) -> list[Path]:
    place = spec.parent / name
    if place.is_dir():
        return sorted(file for file in place.iterdir() if file.suffix in {".yaml", ".yml"})
    if place.is_file():
        return [place]
    raise LabError(f"{spec}: objects: {name!r}: no such file or directory beside it")


def _pod(entry: _Fields) -> PodSpec:
    families = tuple(entry.numbers("families") or (4, 6))
    if not set(families) <= {4, 6}:
        raise LabError(f"{entry.where}.families: 4, 6 or both, not {list(families)}")
    pod = PodSpec(
        name=entry.text("name"),
        namespace=entry.text("namespace", "default"),
        service_account=entry.text("service_account", "default"),
        labels=entry.pairs("labels"),
        annotations=entry.pairs("annotations"),
        families=families,
        servers=tuple(_server(server) for server in entry.entries("servers")),
    )
    entry.done()
    return pod


def _server(entry: _Fields) -> ServerSpec:
    server = ServerSpec(entry.text("name"), entry.texts("command"), entry.pairs("files"), entry.numbers("ports"))
    for name in (server.name, *(file for file, _ in server.files)):
        if not _FILE_NAME.fullmatch(name):
            raise LabError(f"{entry.where}: {name!r} is no plain file name (letters, digits, '-', '_', '.')")
    if not server.command:
        raise LabError(f"{entry.where}.command: a server needs a command, a list of strings")
    for port in server.ports:
        if not 0 < port < 65536:
            raise LabError(f"{entry.where}.ports: {port} is no TCP port (1 to 65535)")
    entry.done()
    return server


@dataclass(slots=True)
class _Fields:
    """One YAML mapping, read field by field; what nobody asked for is an error, so that a typo is found."""

    where: str
    given: Any
    _read: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if not isinstance(self.given, Mapping):
            raise LabError(f"{self.where}: a mapping of fields is needed, not {type(self.given).__name__}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key)
        value = default if value is None else value
        if not isinstance(value, str) or not value:
            raise LabError(f"{self.where}.{key}: a non-empty string is needed, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._list(key, str))

    def numbers(self, key: str) -> tuple[int, ...]:
        return tuple(self._list(key, int))

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        value = self._get(key)
        value = {} if value is None else value
        if not isinstance(value, Mapping) or not all(isinstance(x, str) for pair in value.items() for x in pair):
            raise LabError(f"{self.where}.{key}: a mapping of strings to strings is needed (quote numbers)")
        return tuple(value.items())

    def entries(self, key: str) -> list[_Fields]:
        return [_Fields(f"{self.where}: {key}[{i}]", entry) for i, entry in enumerate(self._list(key, Mapping))]

    def done(self) -> None:
        unknown = sorted(str(key) for key in set(self.given) - self._read)
        if unknown:
            raise LabError(f"{self.where}: unknown field {unknown[0]!r}; known here: {', '.join(sorted(self._read))}")

    def _list(self, key: str, kind: type) -> list[Any]:
        value = self._get(key)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(x, kind) and not isinstance(x, bool) for x in value):
            raise LabError(f"{self.where}.{key}: a list of {kind.__name__} is needed, not {value!r}")
        return value

    def _get(self, key: str) -> Any:
        self._read.add(key)
        return self.given.get(key)
