"""Sandboxes as runtimes and kubelets make, lose and name them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.kernel.pod_processes import sandboxes
from agent.lab import processes
from agent.lab.namespaces import Netns
from tests.kube.cni.plugin import Plugin
from tests.netns.containerd.asked import Pod
from tests.netns.life import kernel
from tests.netns.lifecycle import web
from tests.netns.lifecycle.node import CONFLIST, Node

HOST_USER = 100_000


def test_b48_a_sandbox_whose_processes_were_killed_is_made_anew_and_steered(steered: Node) -> None:
    pod = steered.run("again", web.sleeper())
    steered.wait_proved("again")
    before = steered.netns(pod.pod)
    for process in processes.inside([before]):
        os.kill(process.pid, signal.SIGKILL)
    steered.wait("its end", lambda: pod.pod.uid not in sandboxes(Path("/proc"), ()))
    anew = steered.again(pod, web.sleeper())
    steered.wait_proved("again")
    assert anew.sandbox.id != pod.sandbox.id
    assert "headgate" in kernel.rules(steered.netns(anew.pod))


def test_cgroups_as_the_systemd_driver_names_them(steered: Node) -> None:
    pod = replace(steered.create("sliced"), systemd=True)
    steered.begin(pod, web.sleeper())
    steered.wait_proved("sliced")
    path = sandboxes(Path("/proc"), ())[pod.uid].netns_path
    assert f"-pod{pod.uid.replace('-', '_')}.slice" in Path(path).parents[1].joinpath("cgroup").read_text()


def test_a_pod_in_a_user_namespace_of_its_own_is_steered_by_its_add_and_proved(steered: Node) -> None:
    """`hostUsers: false`: its network namespace belongs to a user namespace whose root is nobody outside. containerd
    makes such from 1.7 on; so the test is the runtime here."""
    pod = steered.create("mapped")
    with _mapped(steered, pod) as pid:
        within = Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()[-1]
        addresses, result = _bridged(steered, pod, f"/proc/{within}/ns/net")
        ours = Plugin(steered.runtime.bin_dir / "headgate-cni", steered.lab.run_directory / "cni.sock")
        words = {"pod": pod.name, "uid": pod.uid, "netns": f"/proc/{within}/ns/net", "container": pod.uid}
        said = ours.run("ADD", ours.config(prevResult=result), **words)
        assert said.status == 0, said.out
        netns = Netns(f"/proc/{pid}/ns/net")
        assert "headgate" in kernel.rules(netns)
        steered.tell(pod, addresses)
        steered.wait_proved("mapped")
        assert ours.run("CHECK", ours.config(prevResult=result), **words).status == 0
        assert ours.run("DEL", ours.config(), **words).status == 0
        assert "headgate" not in kernel.rules(netns)
        steered.api.delete("Pod", pod.name)
    steered.wait("it to be gone", lambda: "mapped" not in steered.pods())


@contextmanager
def _mapped(node: Node, pod: Pod) -> Iterator[int]:
    """A process in user and network namespaces of its own, in the pod's cgroup."""
    words = [*node.machine.enter(), "unshare", "--user", "--net", "--", "sleep", "600"]
    with node.lab.node.popen(words) as entered:
        try:
            node.wait("the namespaces", lambda: _mapped_child(entered.pid) != 0)
            pid = _mapped_child(entered.pid)
            for kind in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{kind}").write_text(f"0 {HOST_USER} 65536\n")
            cgroup = Path(f"/sys/fs/cgroup/pids{node.runtime.cgroup}/kubepods/besteffort/pod{pod.uid}")
            cgroup.mkdir(parents=True)
            (cgroup / "cgroup.procs").write_text(str(pid))
            yield pid
        finally:
            for child in processes.children(entered.pid):
                os.kill(child, signal.SIGKILL)


def _mapped_child(entered: int) -> int:
    """Of nsenter, once it is in a user namespace of its own; 0 before."""
    own = Path("/proc/self/ns/user").stat().st_ino
    found = [pid for pid in processes.children(entered) if Path(f"/proc/{pid}/ns/user").stat().st_ino != own]
    return found[0] if found else 0


def _bridged(node: Node, pod: Pod, netns: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What the first plugin of the node's list does for this namespace: its addresses and its result."""
    listed = json.loads((node.runtime.conf_dir / CONFLIST).read_text())
    config = {**listed["plugins"][0], "name": listed["name"], "cniVersion": "1.0.0"}
    told = {"COMMAND": "ADD", "CONTAINERID": pod.uid, "NETNS": netns, "IFNAME": "eth0", "PATH": "/usr/lib/cni"}
    environment = [f"CNI_{key}={value}" for key, value in told.items()]
    words = [*node.machine.enter(), "env", *environment, "/usr/lib/cni/bridge"]
    result = json.loads(node.lab.node.run(words, stdin=json.dumps(config)).stdout)
    return tuple(one["address"].partition("/")[0] for one in result["ips"]), result
