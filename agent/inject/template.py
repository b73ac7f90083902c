"""What a pod is given: an init container that makes the rules, a sidecar, their volumes (docs/inject.md)."""

import re
from dataclasses import dataclass
from typing import Any, Final

from agent.manifests.documents import IMAGE, Choice, InvalidChoice
from agent.printable import printable
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, PROXY_METRICS_PORT, PROXY_READY_PORT, RUN_DIRECTORY

INIT: Final = "headgate-init"
PROXY: Final = "headgate-proxy"
RUN_VOLUME: Final = "headgate-run"
POLICY_VOLUME: Final = "headgate-policy"
OUR_CONTAINERS: Final = frozenset({INIT, PROXY})
OUR_VOLUMES: Final = frozenset({RUN_VOLUME, POLICY_VOLUME})

PROXY_ID: Final = 1337
"""User and group; `headgate init` knows the proxy by the user unless it is told otherwise."""
PROXY_PORTS: Final = (OUTBOUND_PORT, INBOUND_PORT, PROXY_METRICS_PORT, PROXY_READY_PORT)
"""What `headgate proxy --sidecar` listens on, in the pod's own namespace."""
ADMIN_PORTS: Final = (PROXY_METRICS_PORT, PROXY_READY_PORT)
"""Asked from outside by kubelet and Prometheus, and answered by the sidecar itself: never led to it."""

BACKENDS: Final = ("auto", "nft", "iptables-nft", "iptables-legacy")
_RAW_SOCKETS: Final = "iptables-legacy"
"""It speaks to the kernel through a raw socket (iptables, libiptc/libiptc.c: SOCK_RAW, IPPROTO_RAW)."""

_POLICY_DIRECTORY: Final = "/etc/headgate"
_CONFIG_MAP: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII
)
"""A DNS subdomain (RFC 1123), as every ConfigMap's name."""
_START_S: Final = 60
"""A sidecar is ready in about a second; on a node that starts 30 pods at once, in ten. Then kubelet starts it anew."""
_REQUESTS: Final = {"cpu": "10m", "memory": "64Mi"}
"""A supervisor of 36 MB and a worker of 12 MB (proportional set sizes, measured without policy), what policy takes, and
4 MB for a slow reader (docs/benchmarks.md). No limits: who is killed for memory cuts every connection of the pod."""


class InvalidTemplate(ValueError):
    """What was chosen, why it cannot be, and what can."""


@dataclass(frozen=True, slots=True)
class Template:
    """`native`: the sidecar as an init container that goes on (KEP-753), started before all others and ended after
    them; else a container beside the application's. `config_map`: with policy, in the pod's namespace; without one,
    every connection passes to where it was going. Raises InvalidTemplate."""

    image: str = IMAGE
    native: bool = True
    backend: str = "auto"
    config_map: str = ""

    def __post_init__(self) -> None:
        try:
            Choice(self.image)
        except InvalidChoice as error:
            raise InvalidTemplate(str(error)) from None
        if self.backend not in BACKENDS:
            raise InvalidTemplate(f"backend {printable(self.backend, 80)}: is none of {', '.join(BACKENDS)}")
        if self.config_map and not _CONFIG_MAP.fullmatch(self.config_map):
            name = printable(self.config_map, 80)
            raise InvalidTemplate(f"config map {name}: is no name by RFC 1123: a-z, 0-9, - and ., 253 at most")

    def init(self, steering: tuple[str, ...]) -> dict[str, Any]:
        """The container that makes the rules. `steering`: its arguments, as the pod's annotations have it."""
        backend = () if self.backend == "auto" else ("--backend", self.backend)
        added = ["NET_ADMIN", *(["NET_RAW"] if self.backend == _RAW_SOCKETS else [])]
        return {
            "name": INIT,
            "image": self.image,
            "args": ["init", *backend, *steering],
            "resources": {"requests": dict(_REQUESTS)},
            "securityContext": {
                # The pod's own may say otherwise, and would hold for this container, too.
                "runAsUser": 0,
                "runAsGroup": 0,
                "runAsNonRoot": False,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": added},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }

    def proxy(self) -> dict[str, Any]:
        """The sidecar."""
        policy = ["--config-dir", _POLICY_DIRECTORY] if self.config_map else []
        mounts: list[dict[str, Any]] = [{"name": RUN_VOLUME, "mountPath": RUN_DIRECTORY}]
        if self.config_map:
            mounts.append({"name": POLICY_VOLUME, "mountPath": _POLICY_DIRECTORY, "readOnly": True})
        asked = {"httpGet": {"path": "/healthz/ready", "port": PROXY_READY_PORT}}
        return {
            "name": PROXY,
            "image": self.image,
            "args": ["proxy", "--sidecar", *policy, "--log-format", "json"],
            **({"restartPolicy": "Always"} if self.native else {}),
            "env": [
                _field("POD_NAME", "metadata.name"),
                _field("POD_NAMESPACE", "metadata.namespace"),
                _field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            ],
            "ports": [
                {"name": "headgate-prom", "containerPort": PROXY_METRICS_PORT, "protocol": "TCP"},
                {"name": "headgate-ready", "containerPort": PROXY_READY_PORT, "protocol": "TCP"},
            ],
            # What comes after a native sidecar starts once this has succeeded.
            "startupProbe": {**asked, "periodSeconds": 1, "failureThreshold": _START_S},
            "readinessProbe": {**asked, "periodSeconds": 5, "timeoutSeconds": 2},
            "resources": {"requests": dict(_REQUESTS)},
            "securityContext": {
                "runAsUser": PROXY_ID,
                "runAsGroup": PROXY_ID,
                "runAsNonRoot": True,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": mounts,
        }

    def volumes(self) -> tuple[dict[str, Any], ...]:
        run = {"name": RUN_VOLUME, "emptyDir": {}}
        policy = {"name": POLICY_VOLUME, "configMap": {"name": self.config_map}}
        return (run, policy) if self.config_map else (run,)


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
