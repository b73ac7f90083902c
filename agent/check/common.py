"""Checks of both times, and what checks share. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from agent.check.facts import Cluster, Unseen
from agent.check.lines import Level, Line

OLDEST: Final = (1, 30)
"""docs/kubernetes.md: appArmorProfile is a field since."""
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)", re.ASCII)
_SHOWN: Final = 5

API: Final = "kubernetes-api"


def shown(names: Iterable[str]) -> str:
    """The first of them, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{', '.join(listed[:_SHOWN])}{more}"


def unseen(section: str, identity: str, what: str, fact: Unseen) -> Line:
    """Not looked at, which is no clean bill."""
    return Line(
        section, identity, Level.WARNING, what, f"could not be looked at: {fact.reason}",
        "run this as somebody who may, and with the API server reachable",
    )  # fmt: skip


def numbers(version: str) -> tuple[int, int] | None:
    """Major and minor."""
    found = _VERSION.match(version)
    return None if found is None else (int(found[1]), int(found[2]))


def api_server(cluster: Cluster) -> Iterator[Line]:
    what = "can query the API server"
    if isinstance(cluster.version, Unseen):
        yield Line(
            API, "api-reachable", Level.FAILED, what, f"{cluster.server}: {cluster.version.reason}",
            "see that kubectl works; --kubeconfig and --context choose another cluster",
        )  # fmt: skip
        return
    yield Line(API, "api-reachable", Level.OK, what)
    found, needed = numbers(cluster.version), "{}.{}".format(*OLDEST)
    what = f"runs Kubernetes {needed} or later"
    if found is None or found < OLDEST:
        yield Line(
            API, "api-version", Level.FAILED, what, f"it runs {cluster.version}",
            f"upgrade the cluster: the manifests have fields that are not known before {needed}",
        )  # fmt: skip
    else:
        yield Line(API, "api-version", Level.OK, what)
