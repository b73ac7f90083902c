"""Debian's containerd in the lab's node: real sandboxes by CRI, the reference CNI plugins, ours chained behind."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_tools import protoc

from agent.lab.namespaces import delete, with_prefix
from agent.lab.node import Lab
from tests.netns.containerd import image

WAIT_S: Final = 15.0
SUBNETS: Final = ("10.88.0.0/24", "fd88::/64")
_NAMED: Final = "cni-"
_CGROUPS: Final = Path("/sys/fs/cgroup")
_CONFIG: Final = """version = 2
root = "{at}/root"
state = "{at}/state"
[grpc]
  address = "{at}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{at}/bin"
    conf_dir = "{at}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    id: str
    addresses: tuple[str, ...]


class Runtime:
    """One containerd and its sandboxes. `conf_dir`, `bin_dir`: its CNI directories."""

    def __init__(self, lab: Lab, at: Path) -> None:
        self._lab = lab
        self._at = at
        self.conf_dir, self.bin_dir = at / "net.d", at / "bin"
        self.cgroup = f"/hg-{lab.paths.name}"
        self._process: subprocess.Popen[bytes] | None = None
        self._messages, self._stubs = _modules(at)
        self._ids: list[str] = []
        self._named_before = {netns.name for netns in with_prefix(_NAMED)}
        self._channel: grpc.Channel | None = None

    def prepare(self) -> None:
        """The cluster's own CNI: a bridge, addresses of both families, and portmap."""
        self.conf_dir.mkdir()
        self.bin_dir.mkdir()
        for plugin in Path("/usr/lib/cni").iterdir():
            (self.bin_dir / plugin.name).symlink_to(plugin)
        ranges = [[{"subnet": subnet}] for subnet in SUBNETS]
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipam": {"type": "host-local", "dataDir": str(self._at / "ipam"), "ranges": ranges},
        }
        plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
        listed = {"cniVersion": "1.0.0", "name": "lab", "plugins": plugins}
        (self.conf_dir / "10-bridge.conflist").write_text(json.dumps(listed))
        (self._at / "config.toml").write_text(_CONFIG.format(at=self._at, image=image.NAME))
        image.write(self._at / "image.tar")

    def start(self) -> None:
        with (self._at / "log").open("ab") as log:
            words = ["containerd", "-c", str(self._at / "config.toml")]
            self._process = self._lab.node.popen(words, stdout=log, stderr=log, start_new_session=True)
        self._lab.wait("containerd to answer", self._answers, timeout_s=WAIT_S)

    def load_image(self) -> None:
        words = ["ctr", "-a", str(self._at / "containerd.sock"), "-n", "k8s.io", "images", "import"]
        subprocess.run(
            [*words, "--snapshotter", "native", str(self._at / "image.tar")], check=True, capture_output=True
        )

    def kill(self) -> None:
        """SIGKILL: shims and sandboxes live on."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()
        self._hang_up()

    def run(self, name: str, uid: str, *, attempt: int = 0, timeout_s: float = 60) -> Sandbox:
        """RunPodSandbox, as a kubelet asks for it. Raises grpc.RpcError."""
        asked = self._messages.RunPodSandboxRequest(config=self._config(name, uid, attempt))
        made = self._stub().RunPodSandbox(asked, timeout=timeout_s).pod_sandbox_id
        self._ids.append(made)
        return Sandbox(made, self._addresses(made))

    def start_container(self, sandbox: Sandbox, name: str, uid: str, *words: str) -> None:
        m = self._messages
        config = m.ContainerConfig(
            metadata=m.ContainerMetadata(name=words[1]), image=m.ImageSpec(image=image.NAME), command=list(words)
        )
        asked = m.CreateContainerRequest(
            pod_sandbox_id=sandbox.id, config=config, sandbox_config=self._config(name, uid, 0)
        )
        made = self._stub().CreateContainer(asked, timeout=WAIT_S).container_id
        self._stub().StartContainer(m.ContainerRequest(container_id=made), timeout=WAIT_S)

    def stop(self, sandbox: Sandbox) -> None:
        self._stop(sandbox.id)
        self._ids.remove(sandbox.id)

    def log(self) -> str:
        return (self._at / "log").read_text(errors="replace")

    def close(self) -> None:
        """Sandboxes, containerd, its mounts and cgroups: all go."""
        if self._process is None:
            with suppress(Exception):
                self.start()
        for sandbox_id in list(self._ids):
            with suppress(grpc.RpcError):
                self._stop(sandbox_id)
        self._hang_up()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_S)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(str(self._at)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False, capture_output=True)
        self._remove_cgroups()
        # What a killed containerd was about to make is known to nobody after.
        for netns in with_prefix(_NAMED):
            if netns.name not in self._named_before:
                delete(netns)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _config(self, name: str, uid: str, attempt: int) -> Any:
        m = self._messages
        return m.PodSandboxConfig(
            metadata=m.PodSandboxMetadata(name=name, uid=uid, namespace="default", attempt=attempt),
            hostname=name,
            linux=m.LinuxPodSandboxConfig(cgroup_parent=f"{self.cgroup}/kubepods/besteffort/pod{uid}"),
        )

    def _stop(self, sandbox_id: str) -> None:
        asked = self._messages.PodSandboxRequest(pod_sandbox_id=sandbox_id)
        self._stub().StopPodSandbox(asked, timeout=WAIT_S)
        self._stub().RemovePodSandbox(asked, timeout=WAIT_S)

    def _addresses(self, sandbox_id: str) -> tuple[str, ...]:
        asked = self._messages.PodSandboxRequest(pod_sandbox_id=sandbox_id)
        network = self._stub().PodSandboxStatus(asked, timeout=WAIT_S).status.network
        return (network.ip, *(one.ip for one in network.additional_ips))

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()[-2000:]
        try:
            conditions = self._stub().Status(self._messages.StatusRequest(), timeout=1).status.conditions
        except grpc.RpcError:
            self._hang_up()
            return False
        return len(conditions) == 2 and all(condition.status for condition in conditions)

    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = grpc.insecure_channel(f"unix://{self._at}/containerd.sock")
        return self._stubs.RuntimeServiceStub(self._channel)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _remove_cgroups(self) -> None:
        """Of every hierarchy, the deepest first; what has just ended may hold one for a moment."""
        roots = [path / self.cgroup[1:] for path in (_CGROUPS, *_CGROUPS.iterdir()) if path.is_dir()]
        deadline_s = time.monotonic() + WAIT_S
        while any(root.is_dir() for root in roots) and time.monotonic() < deadline_s:
            for root in roots:
                for directory, _, _ in os.walk(root, topdown=False):
                    with suppress(OSError):
                        Path(directory).rmdir()
            time.sleep(0.02)


def _modules(at: Path) -> tuple[Any, Any]:
    """Messages and stubs, generated from cri.proto beside this file."""
    here = Path(__file__).parent
    target = at / "generated"
    target.mkdir()
    assert protoc.main(["", f"-I{here}", f"--python_out={target}", f"--grpc_python_out={target}", "cri.proto"]) == 0
    sys.path.insert(0, str(target))
    try:
        return importlib.import_module("cri_pb2"), importlib.import_module("cri_pb2_grpc")
    finally:
        sys.path.remove(str(target))


@contextmanager
def running(lab: Lab, at: Path) -> Iterator[Runtime]:
    """Prepared, not started."""
    runtime = Runtime(lab, at)
    try:
        runtime.prepare()
        yield runtime
    finally:
        runtime.close()
