"""The CNI plugin as a container runtime runs it: environment, configuration on stdin, result on stdout."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[3] / "daemonset/cni/headgate-cni.c"
FLAGS = ("-std=c11", "-D_DEFAULT_SOURCE", "-Os", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def build(target: Path, *flags: str) -> Path:
    subprocess.run(["gcc", *FLAGS, *flags, "-o", str(target), str(SOURCE)], check=True)
    return target


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    out: str

    @property
    def error(self) -> dict[str, Any]:
        assert self.status == 1, self.out
        told: dict[str, Any] = json.loads(self.out)
        return told


@dataclass(frozen=True, slots=True)
class Plugin:
    program: Path
    socket: Path

    def config(self, addresses: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        result = {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0"}],
            "ips": [{"address": address, "interface": 0} for address in addresses],
        }
        return {
            "cniVersion": "1.0.0",
            "name": "lab",
            "type": "headgate-cni",
            "socket": str(self.socket),
            "excludeNamespaces": ["kube-system"],
            "prevResult": result,
            **more,
        }

    def run(
        self,
        command: str,
        config: dict[str, Any] | bytes,
        *,
        pod: str = "web",
        namespace: str = "default",
        uid: str = "",
        netns: str = "",
        container: str = "c1",
    ) -> Said:
        with self.begun(
            command, config, pod=pod, namespace=namespace, uid=uid, netns=netns, container=container
        ) as process:
            out, _ = process.communicate(timeout=20)
        return Said(process.returncode, out.decode())

    @contextmanager
    def begun(
        self,
        command: str,
        config: dict[str, Any] | bytes,
        *,
        pod: str = "web",
        namespace: str = "default",
        uid: str = "",
        netns: str = "",
        container: str = "c1",
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Has been given all that it will be."""
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod};K8S_POD_UID={uid}"
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": arguments,
        }
        with tempfile.TemporaryFile() as stdin:
            stdin.write(config if isinstance(config, bytes) else json.dumps(config).encode())
            stdin.seek(0)
            pipe = subprocess.PIPE
            with subprocess.Popen([self.program], env=environment, stdin=stdin, stdout=pipe, stderr=pipe) as process:
                try:
                    yield process
                finally:
                    process.kill()
