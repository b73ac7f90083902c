"""`headgate doctor` in pods into which one real thing was put that is wrong: it finds that, and nothing else."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.doctor.gather import tracking
from agent.plan import Steering
from proxy.api.constants import PROXY_MARK
from tests.netns.doctor.looking import doctor, of, process_in
from tests.netns.kernel.scratch import POD4, pod_and_node
from tests.netns.rules.here import IPTABLES_NFT, LEGACY, NFT, NODE, Here, pod, quiet_pod


def test_a_healthy_node_and_pod_have_no_serious_finding(enrolled: Here, tmp_path: Path) -> None:
    status, said = doctor("--netns", enrolled.pod.path, "--cni-dir", str(tmp_path))
    assert status == 0 and said["serious"] == 0 and said["pods"] == 1
    assert of(enrolled) == []


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_legacy_rules_beside_ours(enrolled: Here) -> None:
    enrolled.restore("iptables-legacy", "*nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 9\nCOMMIT\n")
    assert of(enrolled) == [("mixed-backends", "serious")]
    status, _ = doctor("--netns", enrolled.pod.path)
    assert status == 1


@pytest.mark.parametrize("backend", [NFT, IPTABLES_NFT, LEGACY])
def test_ours_alone_are_well_whatever_makes_them(backend: Any) -> None:
    with pod() as here:
        here.install(backend, NODE, Steering())
        assert of(here) == []


def test_b53_a_rule_that_writes_our_mark(enrolled: Here) -> None:
    enrolled.nft(
        "table inet vpn {\n chain output {\n type route hook output priority -200; meta mark set 0x539;\n}\n}\n"
    )
    assert of(enrolled) == [("mark-conflict", "serious")]


def test_b53_a_routing_rule_that_takes_our_mark(enrolled: Here) -> None:
    enrolled.pod.shell("ip", "rule", "add", "fwmark", "0x111", "lookup", "7", "pref", "50")
    assert of(enrolled) == [("mark-conflict", "serious")]


# ── Interfaces ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_strict_reverse_path_filtering_with_a_second_interface(enrolled: Here) -> None:
    for key in ("all", "eth0"):
        enrolled.pod.run(Path(f"/proc/sys/net/ipv4/conf/{key}/rp_filter").write_text, "1")
    assert of(enrolled) == []  # case B23: it harms no pod of one interface
    enrolled.pod.shell("ip", "link", "add", "net1", "type", "veth", "peer", "name", "net2")
    enrolled.pod.shell("ip", "addr", "add", "192.168.7.5/24", "dev", "net1")
    assert of(enrolled) == [("reverse-path-filter", "warning")]


def test_src_valid_mark_with_a_transparent_proxys_routing(enrolled: Here) -> None:
    enrolled.pod.shell("ip", "rule", "add", "fwmark", "0x10000/0x10000", "lookup", "133", "pref", "99")
    assert of(enrolled) == []
    enrolled.pod.run(Path("/proc/sys/net/ipv4/conf/all/src_valid_mark").write_text, "1")
    assert of(enrolled) == [("src-valid-mark", "warning")]


def test_src_valid_mark_drops_what_was_marked_on_its_way_in() -> None:
    """What the finding says, by the kernel: a packet marked to be delivered here is dropped when the mark counts for
    where it may come from."""
    with pod_and_node() as (made, node):
        made.shell("ip", "rule", "add", "fwmark", "0x10000", "lookup", "133", "pref", "99")
        made.shell("ip", "route", "add", "local", "default", "dev", "lo", "table", "133")
        mark = "type filter hook prerouting priority -150; meta l4proto tcp meta mark set 0x10000;"
        made.shell("nft", f"table ip t {{\n chain p {{\n {mark}\n}}\n}}\n")

        def connects() -> bool:
            with made.run(socket.create_server, (POD4, 80)), node.run(socket.socket) as sock:
                sock.settimeout(0.5)
                return sock.connect_ex((POD4, 80)) == 0

        assert connects()
        made.run(Path("/proc/sys/net/ipv4/conf/all/src_valid_mark").write_text, "1")
        assert not connects()


def test_ipv6_that_is_off_on_lo_alone(enrolled: Here) -> None:
    enrolled.pod.run(Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text, "1")
    assert of(enrolled) == [("ipv6-half-off", "serious")]


def test_rules_of_a_peer_for_ipv4_alone() -> None:
    with pod() as here:
        here.restore(
            "iptables-nft",
            "*nat\n:ISTIO_REDIRECT - [0:0]\n-A OUTPUT -p tcp -j ISTIO_REDIRECT\n"
            "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n",
        )
        assert of(here) == [("ipv6-half-off", "warning")]


# ── Applications ───────────────────────────────────────────────────────────────────────────────────────────────────
LISTEN = "import socket, sys; keep = socket.create_server((sys.argv[1], int(sys.argv[2])))"


@pytest.mark.parametrize(("port", "severity"), [(15001, "serious"), (15006, "serious"), (15053, "warning")])
def test_b31_an_application_on_a_port_of_the_proxys(port: int, severity: str) -> None:
    with pod() as here, process_in(here, LISTEN, "0.0.0.0", str(port)) as pid:
        _, said = doctor("--netns", here.pod.path)
        (finding,) = [one for one in said["findings"] if one["where"].startswith("netns ")]
    assert (finding["id"], finding["severity"]) == ("proxy-port-taken", severity)
    assert f"pid {pid} (" in finding["what"] and f"port {port}" in finding["what"]


def test_b31_the_proxys_own_listener_is_well(enrolled: Here) -> None:
    with enrolled.pod.run(socket.socket) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
        sock.bind(("0.0.0.0", 15001))
        sock.listen()
        assert of(enrolled) == []


DROP = """\
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for bit in range(64):
    libc.prctl(24, bit, 0, 0, 0)  # PR_CAPBSET_DROP
"""
WITH = """\
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
sets = 1 << int(sys.argv[1]) if int(sys.argv[1]) >= 0 else 0
header = struct.pack("=Ii", 0x20080522, 0)
data = struct.pack("=6I", sets & 0xffffffff, sets & 0xffffffff, 0, sets >> 32, sets >> 32, 0)
assert libc.capset(header, data) == 0, ctypes.get_errno()
"""


@pytest.mark.parametrize(
    ("bit", "expected"), [(13, [("net-raw", "warning")]), (12, [("net-admin", "warning")]), (-1, [])]
)
def test_a_process_of_an_enrolled_pod_that_may_pass_the_mesh_by(
    enrolled: Here, bit: int, expected: list[tuple[str, str]]
) -> None:
    with process_in(enrolled, DROP + WITH, str(bit)):
        assert of(enrolled) == expected


def test_net_raw_in_the_bounding_set_only(enrolled: Here) -> None:
    with process_in(enrolled, "import sys\n" + WITH, "-1"):
        assert of(enrolled) == [("net-raw", "info")]


def test_a_pod_that_is_not_enrolled_may_have_any_capability() -> None:
    with pod() as here, process_in(here, ""):
        assert of(here) == []


# ── Connections and objects ────────────────────────────────────────────────────────────────────────────────────────
def test_b32_an_application_connected_to_its_own_proxy(enrolled: Here) -> None:
    with enrolled.pod.run(socket.socket) as proxy:
        proxy.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
        proxy.bind(("127.0.0.1", 15001))
        proxy.listen()
        with enrolled.pod.run(socket.create_connection, ("127.0.0.1", 15001), 2):
            assert of(enrolled) == [("localhost-loop", "warning")]


# ── conntrack ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_conntrack_is_read_from_each_namespace(enrolled: Here) -> None:
    with socket_pair(enrolled):
        found = enrolled.pod.run(tracking.tracking)
    assert found.entries >= 1 and found.limit > 1000 and found.dropped == 0
    with quiet_pod() as other:
        assert other.pod.run(tracking.tracking).entries == 0


@contextmanager
def socket_pair(here: Here) -> Iterator[None]:
    with (
        here.pod.run(socket.create_server, ("127.0.0.1", 8080)),
        here.pod.run(socket.create_connection, ("127.0.0.1", 8080), 2),
    ):
        yield
