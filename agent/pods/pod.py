"""A pod as the agent knows it. Its strings come from files and other processes: they are checked here, once."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

IPAddress = IPv4Address | IPv6Address
Pairs = tuple[tuple[str, str], ...]
"""Labels or annotations: (key, value), sorted by key."""

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_SUBDOMAIN_MAX: Final = 253  # RFC 1123 2.1, as Kubernetes applies it (docs: Object Names and IDs)
_UID: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:]{0,127}")


class InvalidPod(ValueError):
    """A pod's description cannot be right. `field` and `reason` say what; the same input fails again: do not retry."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, order=True)
class NetnsId:
    """Identity of a network namespace: `stat` of its nsfs inode (namespaces(7)). Unique while somebody holds it."""

    device: int
    inode: int

    def __str__(self) -> str:
        return f"{self.device}:{self.inode}"


@dataclass(frozen=True, slots=True)
class PodRef:
    """One workload with a network namespace of its own. Construction validates; raises InvalidPod.

    `uid` names one incarnation: a pod that is deleted and made again has another. `addresses` are the pod's own
    (status.podIPs); empty means unknown, and then no check against the namespace's addresses is possible. `left_out`:
    why its source does not select it for the mesh; empty for a pod that it does.
    """

    uid: str
    namespace: str
    name: str
    service_account: str = "default"
    addresses: tuple[IPAddress, ...] = ()
    labels: Pairs = ()
    annotations: Pairs = ()
    left_out: str = ""

    def __post_init__(self) -> None:
        _check_uid(self.uid)
        _check_label("namespace", self.namespace)
        _check_subdomain("name", self.name)
        _check_subdomain("service_account", self.service_account)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def label(self, key: str) -> str | None:
        return next((value for k, value in self.labels if k == key), None)

    def annotation(self, key: str) -> str | None:
        return next((value for k, value in self.annotations if k == key), None)


def sorted_pairs(items: Iterable[tuple[str, str]]) -> Pairs:
    """Labels in the one order in which equal sets compare equal."""
    return tuple(sorted(items))


def _check_uid(uid: str) -> None:
    if not _UID.fullmatch(uid):
        raise InvalidPod("uid", f"{uid[:80]!r} is not a uid: letters, digits and - . _ :, at most 128")


def _check_label(field: str, value: str) -> None:
    if not _DNS_LABEL.fullmatch(value):
        raise InvalidPod(field, f"{value[:80]!r} is not a DNS label (RFC 1123): a-z, 0-9 and -, at most 63")


def _check_subdomain(field: str, value: str) -> None:
    if len(value) > _DNS_SUBDOMAIN_MAX or not _DNS_SUBDOMAIN.fullmatch(value):
        raise InvalidPod(field, f"{value[:80]!r} is not a DNS name (RFC 1123): a-z, 0-9, - and ., at most 253")
