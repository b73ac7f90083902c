"""What an operator sets for the proxy; proxy.cli reads it from options and the environment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.api.constants import PROXY_METRICS_PORT, PROXY_READY_PORT, RUN_DIRECTORY

DEFAULT_DRAIN_S: Final = 25.0
"""ztunnel's (istio #51748): under the kubelet's terminationGracePeriodSeconds of 30."""

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - scraped from outside; the addresses are the proxy pod's own


MAX_WORKERS: Final = 64
"""A bound on mistakes: at some 18 MB each, a gigabyte."""
_DEFAULT_MAX_WORKERS: Final = 8
"""A node's proxy is not its main purpose; Envoy's --concurrency takes every core there is, which on large nodes costs
memory nobody asked for."""


def default_workers() -> int:
    """One a core that this process may run on (Envoy's --concurrency without an argument), eight at most."""
    return min(len(os.sched_getaffinity(0)), _DEFAULT_MAX_WORKERS)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """`config_dir` None: no policy objects, every connection passes to where it was going.

    `bind` are the addresses of the metrics and readiness ports; port 0 lets the kernel choose. `take_over`: replace the
    proxy that lives on `run_dir`, if there is one. `stays_when_replaced`: then go on, doing nothing, until told to end.
    """

    run_dir: Path = Path(RUN_DIRECTORY)
    config_dir: Path | None = None
    metrics_port: int = PROXY_METRICS_PORT
    ready_port: int = PROXY_READY_PORT
    bind: tuple[str, ...] = WILDCARDS
    drain_s: float = DEFAULT_DRAIN_S
    workers: int = 1
    take_over: bool = False
    stays_when_replaced: bool = False
