"""Debian's containerd in the lab's node: real sandboxes by CRI, the reference CNI plugins, ours chained behind."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_tools import protoc

from agent.lab import processes
from agent.lab.namespaces import delete, with_prefix
from agent.lab.node import Lab
from tests.netns.containerd import image
from tests.netns.containerd.asked import Container, Pod, Sandbox, Security

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


class Runtime:
    """One containerd and its sandboxes. `conf_dir`, `bin_dir`: its CNI directories. `enter`: the words before its
    command, where it runs in namespaces of the node's own."""

    def __init__(self, lab: Lab, at: Path, enter: Callable[[], Sequence[str]] = tuple) -> None:
        self._lab = lab
        self._enter = enter
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
            words = [*self._enter(), "containerd", "-c", str(self._at / "config.toml")]
            self._process = self._lab.node.popen(words, stdout=log, stderr=log, start_new_session=True)
        self._lab.wait("containerd to answer", self._answers, timeout_s=WAIT_S)

    def load_image(self, archive: Path | None = None) -> None:
        """By default the two made here."""
        words = [*self._enter(), "ctr", "-a", str(self._at / "containerd.sock"), "-n", "k8s.io", "images", "import"]
        wanted = str(archive or self._at / "image.tar")
        subprocess.run([*words, "--snapshotter", "native", wanted], check=True, capture_output=True)

    def kill(self) -> None:
        """SIGKILL: shims and sandboxes live on."""
        process, self._process = self._process, None
        assert process is not None
        self._signal(process, signal.SIGKILL)
        process.wait()
        self._hang_up()

    def power_was_cut(self) -> None:
        """Nothing of it runs any more; what it has on disk is there, and what was in /run is not."""
        process, self._process = self._process, None
        assert process is not None
        process.wait(WAIT_S)
        self._hang_up()
        shutil.rmtree(self._at / "state")

    def run(self, pod: Pod, *, timeout_s: float = 60) -> Sandbox:
        """RunPodSandbox, as a kubelet asks for it. Raises grpc.RpcError."""
        asked = self._messages.RunPodSandboxRequest(config=self._config(pod))
        made = self._stub().RunPodSandbox(asked, timeout=timeout_s).pod_sandbox_id
        self._ids.append(made)
        return Sandbox(made, () if pod.host_network else self._addresses(made))

    def start_container(self, sandbox: Sandbox, pod: Pod, container: Container) -> str:
        """Its id. Raises grpc.RpcError."""
        m = self._messages
        asked = m.CreateContainerRequest(
            pod_sandbox_id=sandbox.id, config=self._container(container), sandbox_config=self._config(pod)
        )
        made = str(self._stub().CreateContainer(asked, timeout=WAIT_S).container_id)
        self._stub().StartContainer(m.ContainerRequest(container_id=made), timeout=WAIT_S)
        return made

    def stop_container(self, container: str, grace_s: int) -> None:
        """SIGTERM, and SIGKILL after the grace; returns when it has ended."""
        asked = self._messages.StopContainerRequest(container_id=container, timeout=grace_s)
        self._stub().StopContainer(asked, timeout=grace_s + WAIT_S)

    def exit_code(self, container: str) -> int | None:
        """None while it runs."""
        status = self._container_status(container).status
        return int(status.exit_code) if status.state == self._messages.CONTAINER_EXITED else None

    def pid(self, container: str) -> int:
        """Of its first process, as this machine counts."""
        return int(json.loads(self._container_status(container).info["info"])["pid"])

    def pause_pid(self, sandbox: Sandbox) -> int:
        """Of the sandbox' own process."""
        asked = self._messages.PodSandboxStatusRequest(pod_sandbox_id=sandbox.id, verbose=True)
        return int(json.loads(self._stub().PodSandboxStatus(asked, timeout=WAIT_S).info["info"])["pid"])

    def takes(self, name: str) -> bool:
        """Whether the CNI list of this name is the one that its pods get."""
        told = self._stub().Status(self._messages.StatusRequest(verbose=True), timeout=WAIT_S)
        networks = json.loads(told.info["cniconfig"])["Networks"]
        return any(one["Config"]["Name"] == name for one in networks)

    def has(self, sandbox: Sandbox) -> bool:
        return sandbox.id in self._ids

    def stop(self, sandbox: Sandbox) -> None:
        self._stop(sandbox.id)
        self._ids.remove(sandbox.id)

    def log(self) -> str:
        return (self._at / "log").read_text(errors="replace")

    def close(self) -> None:
        """Sandboxes, containerd, its mounts and cgroups: all go."""
        if self._process is None and self._ids:
            with suppress(Exception):
                self.start()
        for sandbox_id in list(self._ids):
            with suppress(grpc.RpcError):
                self._stop(sandbox_id)
        self._hang_up()
        if self._process is not None:
            self._signal(self._process, signal.SIGTERM)
            self._process.wait(WAIT_S)
            self._process = None
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(str(self._at)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False, capture_output=True)
        self._remove_cgroups()
        # What a killed containerd was about to make is known to nobody after.
        for netns in with_prefix(_NAMED):
            if netns.name not in self._named_before:
                delete(netns)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        """To containerd; who entered its namespaces ends with it, nsenter(1)."""
        (containerd,) = processes.children(process.pid) if self._enter() else (process.pid,)
        os.kill(containerd, number)

    def _config(self, pod: Pod) -> Any:
        m = self._messages
        network = m.NODE if pod.host_network else m.POD
        security = m.LinuxSandboxSecurityContext(
            namespace_options=m.NamespaceOption(network=network, pid=m.CONTAINER),
            seccomp=m.SecurityProfile(profile_type=m.Unconfined),
        )
        return m.PodSandboxConfig(
            metadata=m.PodSandboxMetadata(name=pod.name, uid=pod.uid, namespace=pod.namespace, attempt=pod.attempt),
            hostname="" if pod.host_network else pod.name,
            log_directory=pod.log_directory,
            linux=m.LinuxPodSandboxConfig(cgroup_parent=f"{self.cgroup}/{_cgroup(pod)}", security_context=security),
        )

    def _container(self, container: Container) -> Any:
        m = self._messages
        mounts = [
            m.Mount(
                container_path=one.at,
                host_path=one.host,
                readonly=one.readonly,
                propagation=m.PROPAGATION_HOST_TO_CONTAINER if one.follows else m.PROPAGATION_PRIVATE,
            )
            for one in container.mounts
        ]
        return m.ContainerConfig(
            metadata=m.ContainerMetadata(name=container.name),
            image=m.ImageSpec(image=container.image),
            command=list(container.words),
            args=list(container.arguments),
            envs=[m.KeyValue(key=key, value=value) for key, value in container.environment],
            mounts=mounts,
            log_path=f"{container.name}.log",
            linux=m.LinuxContainerConfig(security_context=self._security(container.security)),
        )

    def _security(self, wanted: Security) -> Any:
        m = self._messages
        capabilities = m.Capability(
            add_capabilities=list(wanted.capabilities), drop_capabilities=["ALL"] if wanted.drop_all else []
        )
        return m.LinuxContainerSecurityContext(
            capabilities=capabilities,
            namespace_options=m.NamespaceOption(pid=m.CONTAINER),
            run_as_user=None if wanted.user is None else m.Int64Value(value=wanted.user),
            readonly_rootfs=wanted.readonly_root,
            no_new_privs=wanted.no_new_privs,
            seccomp=m.SecurityProfile(profile_type=m.RuntimeDefault if wanted.seccomp else m.Unconfined),
        )

    def _container_status(self, container: str) -> Any:
        asked = self._messages.ContainerStatusRequest(container_id=container, verbose=True)
        return self._stub().ContainerStatus(asked, timeout=WAIT_S)

    def _stop(self, sandbox_id: str) -> None:
        """Again when it fails, as a kubelet does: a shim whose processes were killed goes a moment after them."""
        asked = self._messages.PodSandboxRequest(pod_sandbox_id=sandbox_id)
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                self._stub().StopPodSandbox(asked, timeout=WAIT_S)
                self._stub().RemovePodSandbox(asked, timeout=WAIT_S)
                return
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(0.1)

    def _addresses(self, sandbox_id: str) -> tuple[str, ...]:
        asked = self._messages.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
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


def _cgroup(pod: Pod) -> str:
    """kubelet/cm, cgroup_manager_linux.go."""
    if not pod.systemd:
        return f"kubepods/besteffort/pod{pod.uid}"
    name = f"kubepods-besteffort-pod{pod.uid.replace('-', '_')}.slice"
    return f"kubepods.slice/kubepods-besteffort.slice/{name}"


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
def running(lab: Lab, at: Path, enter: Callable[[], Sequence[str]] = tuple) -> Iterator[Runtime]:
    """Prepared, not started."""
    runtime = Runtime(lab, at, enter)
    try:
        runtime.prepare()
        yield runtime
    finally:
        runtime.close()
