"""What `headgate install` prints, as objects; and what daemonset/ says where comments count."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTERS = ("base", "gke", "k3s", "openshift")
"""Each a whole installation; pod-monitor goes beside."""


@cache
def documents(name: str) -> list[dict[str, Any]]:
    """Everybody's: not to be changed."""
    return list(yaml.safe_load_all((ROOT / f"agent/manifests/{name}.yaml").read_text()))


def of_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in found if one["kind"] == kind]


def daemonset(cluster: str, which: str) -> dict[str, Any]:
    """`which`: agent or proxy."""
    (found,) = (
        one for one in of_kind(documents(cluster), "DaemonSet") if one["metadata"]["name"] == f"headgate-{which}"
    )
    return found


def pod(cluster: str, which: str) -> dict[str, Any]:
    """Its pods' spec."""
    spec: dict[str, Any] = daemonset(cluster, which)["spec"]["template"]["spec"]
    return spec


def container(cluster: str, which: str) -> dict[str, Any]:
    (found,) = pod(cluster, which)["containers"]
    return dict(found)
