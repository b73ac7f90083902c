"""The rules of an init container, made by running it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agent.lab.node import LabPod, headgate

DIRECT_PORT: Final = 5432
"""Excluded."""

ISTIO: Final = (
    "istio",
    *("-p", "15001", "-z", "15006", "-u", "1337", "-g", "1337", "-m", "REDIRECT"),
    *("-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020", "-o", str(DIRECT_PORT)),
    "--dual-stack",
)
"""The words of Istio's injection template (manifests/charts/istio-control/istio-discovery/files), both families, and an
excluded port."""
TRANSPARENT: Final = ("--no-passthrough", "--exclude-outbound-ports", str(DIRECT_PORT))
BY_MARK: Final = ("--identity", "mark")


@contextmanager
def ruled(pod: LabPod, *words: str) -> Iterator[None]:
    """By `headgate init` with these words."""
    try:
        pod.run([*headgate(), "init", *words])
        yield
    finally:
        pod.run([*headgate(), "init", "--cleanup"])
