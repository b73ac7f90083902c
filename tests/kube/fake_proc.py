"""A node's /proc, as far as pods are found by it: cgroups, starts and namespaces of processes."""

from pathlib import Path

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"

LAYOUTS = {
    "v2, systemd, containerd": "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/"
    "cri-containerd-4f5e.scope\n",
    "v2, systemd, cri-o": "0::/kubepods.slice/kubepods-pod{under}.slice/crio-4f5e.scope/container\n",
    "v2, cgroupfs": "0::/kubepods/besteffort/pod{uid}/4f5e\n",
    "v2, another cgroup namespace": "0::/../../kubepods-besteffort-pod{under}.slice/cri-containerd-4f5e.scope\n",
    "v1, cgroupfs, docker": "12:pids:/kubepods/burstable/pod{uid}/4f5e\n"
    "5:cpu,cpuacct:/kubepods/burstable/pod{uid}/4f5e\n",
    "v1, systemd": "11:memory:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/"
    "docker-4.scope\n",
    "hybrid": "3:cpu:/kubepods/pod{uid}/4f5e\n0::/system.slice/containerd.service\n",
    "kind, a node in a container": "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
    "kubelet-kubepods-besteffort-pod{under}.slice/cri-containerd-4f5e.scope\n",
}


def cgroup(layout: str, uid: str = UID) -> str:
    return LAYOUTS[layout].format(uid=uid, under=uid.replace("-", "_"))


class FakeProc:
    """`process` adds one; its namespace is a file, or a real one."""

    def __init__(self, root: Path, node: Path | None = None) -> None:
        self.root = root
        self._node = node or self.namespace("node")
        self.process(1, "0::/init.scope\n", self._node, started=1)

    def namespace(self, name: str) -> Path:
        path = self.root / "namespaces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def bound(self, netns: Path, name: str) -> Path:
        """The namespace under another name, as a runtime binds it: it lives as long as that, with no process in it."""
        path = self.root / "bound" / name
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(netns)
        return path

    @property
    def node(self) -> Path:
        return self._node

    def process(self, pid: int, cgroups: str, netns: Path, *, started: int = 100) -> None:
        directory = self.root / str(pid)
        (directory / "ns").mkdir(parents=True, exist_ok=True)
        (directory / "cgroup").write_text(cgroups)
        fields = ["S", *("0" for _ in range(18)), str(started), "0"]
        (directory / "stat").write_text(f"{pid} (a) {pid}) ) {' '.join(fields)}\n")
        link = directory / "ns/net"
        link.unlink(missing_ok=True)
        link.symlink_to(netns)

    def end_all(self) -> None:
        """But for the first one."""
        for path in self.root.iterdir():
            if path.name.isdecimal() and path.name != "1":
                self.end(int(path.name))

    def end(self, pid: int) -> None:
        for path in ("ns/net", "cgroup", "stat"):
            (self.root / str(pid) / path).unlink()
        (self.root / str(pid) / "ns").rmdir()
        (self.root / str(pid)).rmdir()
