"""The files of a lab that agent and proxy read: its pods for the one, Kubernetes objects for the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

import yaml

from agent.lab.errors import LabError
from agent.lab.spec import PodSpec

_PLACEHOLDER: Final = re.compile(r"@(?:([a-z0-9][-a-z0-9]*)\.)?([a-z0-9]+)@")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod as it is now: what its spec said, what it is labelled and annotated with, and what the lab gave it."""

    spec: PodSpec
    uid: str
    netns: str
    address4: IPv4Address | None
    address6: IPv6Address | None
    labels: Mapping[str, str]
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def addresses(self) -> list[str]:
        return [str(address) for address in (self.address4, self.address6) if address is not None]


def pods_file(pods: Sequence[PodFacts]) -> str:
    """The agent's pods file (`headgate agent --pods-file`)."""
    return _dump(
        {
            "pods": [
                {
                    "name": pod.spec.name,
                    "namespace": pod.spec.namespace,
                    "uid": pod.uid,
                    "service_account": pod.spec.service_account,
                    "netns": pod.netns,
                    "addresses": pod.addresses,
                    "labels": dict(pod.labels),
                    "annotations": dict(pod.annotations),
                }
                for pod in pods
                if pod.spec.listed
            ]
        }
    )


def pod_object(pod: PodFacts) -> str:
    """The Pod as the API server would show it to the proxy."""
    return _dump(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod.spec.name,
                "namespace": pod.spec.namespace,
                "uid": pod.uid,
                "labels": dict(pod.labels),
                "annotations": dict(pod.annotations),
            },
            "spec": {"serviceAccountName": pod.spec.service_account},
            "status": {
                "phase": "Running",
                "podIP": pod.addresses[0],
                "podIPs": [{"ip": address} for address in pod.addresses],
            },
        }
    )


def fill(text: str, pods: Mapping[str, PodFacts], own: Mapping[str, str], where: str) -> str:
    """Replaces @POD.address4@ and @POD.address6@ by that pod's, @KEY@ by `own`; LabError names one that is neither.
    Other text between two @ is left as it is."""

    def value(match: re.Match[str]) -> str:
        name, key = match.groups()
        if name is None:
            return own.get(key, match.group())
        if name not in pods or key not in {"address4", "address6"}:
            raise LabError(f"{where}: {match.group()}: no such pod or key; known: @POD.address4@ and @POD.address6@")
        address = pods[name].address4 if key == "address4" else pods[name].address6
        if address is None:
            raise LabError(f"{where}: {match.group()}: pod {name!r} has no address of that family")
        return str(address)

    return _PLACEHOLDER.sub(value, text)


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file in one step: a reader sees the old text or the new, never a part."""
    beside = path.with_name(f".{path.name}.new")  # no .yaml suffix: a reader of the directory leaves it alone
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _dump(document: Any) -> str:
    return yaml.safe_dump(document, sort_keys=False)
