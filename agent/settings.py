"""What an operator sets for the agent; agent.cli.agent reads it from options and the environment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.plan import OnUnsteered
from agent.reconcile import LifeSettings
from proxy.api.constants import ADMIN_SOCKET, AGENT_METRICS_PORT, FDS_SOCKET, OBJECTS_SOCKET, RUN_DIRECTORY, ZDS_SOCKET

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - Prometheus scrapes from outside; the addresses are the agent pod's
DEFAULT_DRAIN_S: Final = 30.0
"""Kubernetes' terminationGracePeriodSeconds: who holds connections longer has been told to let go."""


DEFAULT_PARK_TIMEOUT_S: Final = 30.0
"""DESIGN 6: clients and kubelets (probe time-outs of a second, thrice) are to fail fast once a proxy is not coming."""


AUTO: Final = "auto"
"""The first backend that works here."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """`pods_file` None: every named network namespace is a pod. `objects_dir` None: the proxy has its own source of
    policy. `metrics_port` 0: the kernel chooses. `backend`: a value of
    agent.kernel.backends.Backend, or AUTO."""

    run_dir: Path = Path(RUN_DIRECTORY)
    pods_file: Path | None = None
    metrics_port: int = AGENT_METRICS_PORT
    bind: tuple[str, ...] = WILDCARDS
    cleanup_on_exit: bool = False
    park_timeout_s: float = DEFAULT_PARK_TIMEOUT_S
    life: LifeSettings = field(default_factory=LifeSettings)
    objects_dir: Path | None = None
    on_unsteered: OnUnsteered = OnUnsteered.REPORT
    backend: str = AUTO

    @property
    def zds_socket(self) -> Path:
        return self.run_dir / ZDS_SOCKET

    @property
    def objects_socket(self) -> Path:
        return self.run_dir / OBJECTS_SOCKET

    @property
    def fds_socket(self) -> Path:
        return self.run_dir / FDS_SOCKET

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / ADMIN_SOCKET
