"""A file that lists pods (YAML), checked strictly.

    pods:
      - name: web            # required
        namespace: default
        uid: 6f2c…           # default: derived from namespace, name and netns
        service_account: default
        netns: web           # required: a name under /run/netns, or an absolute path
        addresses: [10.0.0.5, "fd00::5"]
        labels: {app: web}
        annotations: {}

A file that cannot be read as a whole gives no list; one entry that is wrong costs that entry only.
"""

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import yaml

from agent.pods import InvalidPod, IPAddress, Pairs, PodRef, sorted_pairs
from agent.printable import printable

_FIELDS: Final = frozenset(
    {"name", "namespace", "uid", "service_account", "netns", "addresses", "labels", "annotations"}
)
_NETNS_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,254}")  # NAME_MAX; ip-netns(8) forbids / . and ..
_UID_SPACE: Final = uuid.UUID("8a5a3c2e-6d0b-5a43-9a39-0f6f1d9d3c55")

# The C loader reads 250 pods in 40 ms, the Python one in 160.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class InvalidPodsFile(ValueError):
    """The file as a whole cannot be understood; the message says where. Keep what was known; retry when it changed."""


@dataclass(frozen=True, slots=True)
class ListedPod:
    """An entry: the pod, and the path of its network namespace."""

    pod: PodRef
    netns_path: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that cannot be used. `entry` says which (position and, when it has one, name), `key` is its
    namespace/name when these can be read."""

    entry: str
    field: str
    reason: str
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.entry}: {self.field}: {self.reason}"


def parse_pods(text: str, netns_directory: Path) -> tuple[tuple[ListedPod, ...], tuple[Problem, ...]]:
    """The pods of a file's text, and the entries that are wrong. Raises InvalidPodsFile."""
    pods: list[ListedPod] = []
    problems: list[Problem] = []
    for position, entry in enumerate(_entries(text), 1):
        try:
            listed = _listed(entry, netns_directory)
            _unlike(listed, pods)
        except InvalidPod as error:
            problems.append(Problem(_label(position, entry), error.field, printable(error.reason), _key(entry)))
        else:
            pods.append(listed)
    return tuple(pods), tuple(problems)


def derived_uid(namespace: str, name: str, netns_path: str) -> str:
    """The uid of a pod that was given none: the same for the same three, in every process (RFC 4122 version 5)."""
    return str(uuid.uuid5(_UID_SPACE, f"{namespace}/{name}/{netns_path}"))


def _entries(text: str) -> list[Any]:
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, in C when there is one
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidPodsFile(f"no YAML: {printable(' '.join(str(error).split()))}") from error
    if document is None:
        return []
    if not isinstance(document, dict) or set(document) - {"pods"}:
        raise InvalidPodsFile("the file must be a mapping with one key: `pods`")
    entries = document.get("pods") or []
    if not isinstance(entries, list):
        raise InvalidPodsFile("pods: must be a list")
    return entries


def _listed(entry: object, netns_directory: Path) -> ListedPod:
    if not isinstance(entry, dict):
        raise InvalidPod("entry", "must be a mapping with at least `name` and `netns`")
    unknown = sorted(str(key) for key in entry if key not in _FIELDS)
    if unknown:
        raise InvalidPod(printable(unknown[0], 60), f"unknown field; known are {', '.join(sorted(_FIELDS))}")
    name, namespace = _text(entry, "name"), _text(entry, "namespace", "default")
    netns_path = _netns_path(_text(entry, "netns"), netns_directory)
    pod = PodRef(
        uid=_text(entry, "uid", derived_uid(namespace, name, netns_path)),
        namespace=namespace,
        name=name,
        service_account=_text(entry, "service_account", "default"),
        addresses=_addresses(entry.get("addresses")),
        labels=_pairs(entry, "labels"),
        annotations=_pairs(entry, "annotations"),
    )
    return ListedPod(pod, netns_path)


def _netns_path(value: str, directory: Path) -> str:
    if value.startswith("/"):
        if "\0" in value:
            raise InvalidPod("netns", "a path holds no NUL")
        return value
    if not _NETNS_NAME.fullmatch(value):
        raise InvalidPod("netns", f"{value[:80]!r} is neither a name under {directory} nor an absolute path")
    return str(directory / value)


def _text(entry: dict[object, object], field: str, default: str | None = None) -> str:
    value = entry.get(field, default)
    if value is None:
        raise InvalidPod(field, "is required")
    if not isinstance(value, str):
        raise InvalidPod(field, f"must be text, is {type(value).__name__}; quote it")
    return value


def _addresses(value: object) -> tuple[IPAddress, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidPod("addresses", "must be a list of IP addresses")
    return tuple(_address(item) for item in value)


def _address(value: object) -> IPAddress:
    try:
        return ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidPod("addresses", f"{str(value)[:80]!r} is no IP address") from None


def _pairs(entry: dict[object, object], field: str) -> Pairs:
    value = entry.get(field)
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise InvalidPod(field, "must be a mapping of text to text")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise InvalidPod(field, f"{str(key)[:80]!r}: key and value must be text; quote them")
    return sorted_pairs(value.items())


def _unlike(listed: ListedPod, others: Iterable[ListedPod]) -> None:
    for other in others:
        if other.pod.uid == listed.pod.uid:
            raise InvalidPod("uid", f"is {other.pod}'s already")
        if other.netns_path == listed.netns_path:
            raise InvalidPod("netns", f"is {other.pod}'s already; two pods cannot share one set of rules")


def _label(position: int, entry: object) -> str:
    key = _key(entry)
    return f"pod {position}" if key is None else f"pod {position} ({printable(key, 100)})"


def _key(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return None
    name, namespace = entry.get("name"), entry.get("namespace", "default")
    return f"{namespace}/{name}" if isinstance(name, str) and isinstance(namespace, str) else None
