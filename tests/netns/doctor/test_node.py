"""`headgate doctor` of the node: its kernel, what is attached to its sockets, its directories and locks."""

import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.doctor.checks import judged
from agent.doctor.examine import Sought, examine
from agent.doctor.gather import bpf, features
from agent.kernel.netns import leave_for_scratch
from tests.netns.doctor.looking import doctor, process_in
from tests.netns.kernel.scratch import Scratch
from tests.netns.rules.here import Here


def test_this_kernel_has_what_redirection_needs() -> None:
    found = features.features()
    assert [tried.name for tried in found.nft if tried.complaint is not None] == []
    assert [tried.name for tried in found.bpf if tried.complaint is not None] == []
    assert found.cgroup2 is not None and all(reason is None for _, reason in found.backends)


def test_an_expression_that_the_kernel_lacks_is_noticed() -> None:
    """`queue` is off here (reference/feasibility.md 1a): the same trial tells."""
    made = Scratch()
    with made:
        wanted = (("ct state", features._FILTER, "ct state new accept"), ("queue", features._FILTER, "queue num 1"))
        (there, lacking) = made.run(lambda: tuple(features._tried(True, tuple((*one, "", "", "") for one in wanted))))
    assert there.complaint is None and lacking.complaint is not None


OBJECTS = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bank}
spec: {hosts: [pay.example], location: MESH_EXTERNAL}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: bank}
spec: {host: pay.example, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
"""


def test_objects_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(OBJECTS)
    status, said = doctor("--directory", str(tmp_path), "--only", "external-mutual-tls", "--only", "no-timeout")
    assert status == 1
    assert [(one["id"], one["where"]) for one in said["findings"]] == [
        ("external-mutual-tls", "DestinationRule default/bank"),
        ("no-timeout", "VirtualService default/web"),
    ]


# ── The node ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_cni_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "05-a.conf").write_text('{"name": "a", "type": "bridge"}')
    (tmp_path / "10-b.conflist").write_text('{"name": "b", "plugins": [{"type": "calico"}, {"type": "istio-cni"}]}')
    status, said = doctor("--cni-dir", str(tmp_path), "--only", "cni-order")
    assert status == 1
    assert [(one["severity"], one["where"]) for one in said["findings"]] == [
        ("serious", f"file {tmp_path}/10-b.conflist"),
        ("info", f"file {tmp_path}/05-a.conf"),
    ]


def test_a_namespaces_lock_that_is_not_let_go(enrolled: Here) -> None:
    with Path(enrolled.pod.path).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _, said = doctor("--netns", enrolled.pod.path, "--only", "xtables-lock")
    (finding,) = said["findings"]
    assert f"pid {os.getpid()} (" in finding["what"] and enrolled.pod.path in finding["what"]


def in_own_namespace(call: Any) -> Any:
    """With the calling thread's own namespace a scratch one: what the doctor takes for the node's."""
    outcome: list[Any] = []

    def body() -> None:
        leave_for_scratch()
        outcome.append(call())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return outcome[0]


@pytest.mark.parametrize(
    ("tool", "script", "mode"),
    [
        (
            "iptables-nft-restore",
            "*nat\n:KUBE-SERVICES - [0:0]\n-A OUTPUT -j KUBE-SERVICES\n"
            "-A KUBE-SERVICES -d 10.96.0.1 -j RETURN\nCOMMIT\n",
            "iptables (iptables-nft)",
        ),
        ("nft", "table ip kube-proxy {\n chain services {\n ip daddr 10.96.0.1 accept\n}\n}\n", "nftables"),
    ],
)
def test_kube_proxys_mode(tool: str, script: str, mode: str) -> None:
    def look() -> Any:
        arguments = ["nft", "-f", "-"] if tool == "nft" else [tool]
        subprocess.run(arguments, input=script, text=True, check=True)
        return [finding.what for finding in judged(examine(Sought()), frozenset({"kube-proxy"}))]

    assert in_own_namespace(look) == [f"kube-proxy translates Services by {mode}"]


def test_a_namespace_that_is_gone_or_none_is_told_and_ends_nothing(enrolled: Here, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    words = [
        word for path in ("/run/netns/gone", str(tmp_path / "none"), enrolled.pod.path) for word in ("--netns", path)
    ]
    status, said = doctor(*words)
    assert status == 0 and said["pods"] == 1
    reasons = {one["where"]: one["reason"] for one in said["unseen"] if one["what"] == "everything"}
    assert reasons["netns /run/netns/gone"].startswith("No such file")
    assert "no namespace file" in reasons[f"netns {tmp_path}/none"]


def test_without_the_right_to_enter_it_is_said_which_capability_that_takes(enrolled: Here) -> None:
    code = (
        "import ctypes, struct, sys\nlibc = ctypes.CDLL(None)\n"
        "libc.capset(struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', 0, 0, 0, 0, 0, 0))\n"
        "sys.argv[0] = 'headgate'\nfrom agent.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--netns", enrolled.pod.path, "-o", "json", "--run-dir", "/nonexistent"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = json.loads(done.stdout)
    reasons = {one["what"]: one["reason"] for one in said["unseen"]}
    assert "CAP_SYS_ADMIN" in reasons["everything"] and "CAP_NET_ADMIN" in reasons["rules"], said
    assert "CAP_SYS_ADMIN" in reasons["kernel features"] and done.returncode == 0


def test_what_may_not_be_tried_is_not_taken_for_what_the_kernel_cannot_do(enrolled: Here) -> None:
    without = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", sys.executable, "-m", "agent"]
    words = [*without, "doctor", "--netns", enrolled.pod.path, "-o", "json", "--run-dir", "/nonexistent"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    said = json.loads(done.stdout)
    reasons = {one["what"]: one["reason"] for one in said["unseen"]}
    assert "CAP_NET_ADMIN" in reasons["kernel features"] and done.stderr == ""
    assert not {"nft-expressions", "nft-optional"} & {found["id"] for found in said["findings"]}


# ── Programs on sockets ────────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def attached(name: bytes) -> Iterator[str]:
    """A cgroup of its own with a program of that name on connect4, as Cilium attaches its own to the root."""
    tree = features.cgroup2()
    assert tree is not None
    cgroup = Path(tree, f"hg-doctor-{os.getpid()}")
    cgroup.mkdir()
    try:
        code = ctypes.create_string_buffer(bpf._RETURN_ONE, 16)
        words = ctypes.create_string_buffer(b"GPL")
        load = struct.pack(
            "=IIQQIIQII16sII", 18, 2, ctypes.addressof(code), ctypes.addressof(words), 0, 0, 0, 0, 0, name, 0, 10
        )
        program = bpf._bpf(5, ctypes.create_string_buffer(load, len(load)))
        directory = os.open(cgroup, os.O_RDONLY)
        try:
            attach = struct.pack("=IIII", directory, program, 10, 0)
            bpf._bpf(8, ctypes.create_string_buffer(attach, len(attach)))  # BPF_PROG_ATTACH; gone with the cgroup
        finally:
            os.close(program)
            os.close(directory)
        yield str(cgroup)
    finally:
        cgroup.rmdir()


JOIN = "import os, sys, pathlib; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))"


@pytest.mark.parametrize(("name", "severity"), [(b"cil_sock4_conne", "warning"), (b"mb_sock4_connec", "warning")])
def test_a_program_on_the_sockets_of_a_pods_cgroup(enrolled: Here, name: bytes, severity: str) -> None:
    with attached(name) as cgroup:
        with process_in(enrolled, JOIN, cgroup):
            _, said = doctor("--netns", enrolled.pod.path, "--only", "socket-lb")
        _, without = doctor("--netns", enrolled.pod.path, "--only", "socket-lb")
    (finding,) = said["findings"]
    assert finding["severity"] == severity and name.decode() in finding["what"] and "connect4" in finding["what"]
    assert ("Cilium" in finding["what"]) == name.startswith(b"cil")
    assert without["findings"] == []


@pytest.mark.parametrize(
    ("text", "host_only"), [("#define ENABLE_SOCKET_LB_HOST_ONLY 1\n", True), ("#define X\n", False)]
)
def test_ciliums_own_configuration_says_whether_pods_are_left_alone(tmp_path: Path, text: str, host_only: bool) -> None:
    configuration = tmp_path / "node_config.h"
    configuration.write_text(text)
    with attached(b"cil_sock4_conne") as cgroup:
        found = bpf.socket_programs((cgroup, f"{cgroup}/gone"), configuration)
    assert [(program.hook, program.name) for program in found.programs] == [("connect4", "cil_sock4_conne")]
    assert found.cilium_host_only is host_only


# ── Descriptors ────────────────────────────────────────────────────────────────────────────────────────────────────
PROXY = """\
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
files = [open("/dev/null") for _ in range(35)]
print(1, flush=True)
input()
"""


def test_a_proxy_without_descriptors_is_found_by_its_command_line(tmp_path: Path) -> None:
    script = tmp_path / "headgate"
    script.write_text(PROXY)
    with subprocess.Popen(
        [sys.executable, str(script), "proxy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"1\n"
            status, said = doctor("--only", "descriptors")
        finally:
            process.kill()
    told = [one for one in said["findings"] if f"pid {process.pid})" in one["what"]]
    assert status == 1 and [one["severity"] for one in told] == ["serious"]
    assert "may open 40 files and has 38" in told[0]["what"]
