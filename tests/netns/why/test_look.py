"""A look into a namespace: what is there, what is not, and what may not be seen."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.kernel.backends import Backend
from agent.lab.namespaces import Netns
from agent.lab.node import headgate
from agent.why.facts import Loopback, NoNetns, Ours, Table, Unopened
from agent.why.facts import Netns as Seen
from agent.why.look import look
from tests.netns.rules.here import NODE, SIDECAR, Here, pod

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
POWERLESS = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")


def seen(path: str) -> Seen:
    found = look(path)
    assert isinstance(found, Seen)
    return found


def test_fresh_namespace_holds_nothing(make_netns: Callable[[], Netns]) -> None:
    netns = make_netns()
    found = seen(str(netns.path))
    assert (found.own, found.ports, found.conflicts, found.led) == (False, (), (), ())
    assert found.loopback == Loopback(True, True, True)
    assert isinstance(found.ours, Ours) and found.ours.nothing
    assert isinstance(found.conntrack, Table) and not found.conntrack.full
    netns.run(["ip", "link", "set", "lo", "down"])
    assert not seen(str(netns.path)).loopback.up


def test_ipv6_that_is_off_is_seen(make_netns: Callable[[], Netns]) -> None:
    netns = make_netns()
    netns.write_sysctl("net/ipv6/conf/lo/disable_ipv6", "1")
    assert seen(str(netns.path)).loopback == Loopback(True, True, False, ipv6_off=True)


def test_own_namespace_is_known_as_such() -> None:
    assert seen("/proc/self/ns/net").own


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.write_text("")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    kinds = {str(missing): Unopened.MISSING, str(file): Unopened.NO_NETNS, str(tmp_path): Unopened.NO_NETNS}
    for path, kind in {**kinds, str(fifo): Unopened.NO_NETNS, "/proc/self/ns/mnt": Unopened.NO_NETNS}.items():
        found = look(path)
        assert isinstance(found, NoNetns) and found.kind is kind, path


def test_who_holds_the_ports_and_with_what_mark(make_netns: Callable[[], Netns]) -> None:
    netns = make_netns()
    with (
        closing(netns.listen("127.0.0.1", 15001)),
        closing(netns.listen("::1", 15006)),
        closing(netns.listen("::1", 80)),
    ):
        held = seen(str(netns.path)).ports
    assert [(one.port, one.marked, one.pid) for one in held] == [
        (15001, False, os.getpid()),
        (15006, False, os.getpid()),
    ]


@pytest.mark.parametrize("backend", list(Backend), ids=lambda backend: backend.value)
def test_rules_of_ours_are_seen_whatever_they_are_made_of(backend: Backend) -> None:
    with pod() as here:
        here.install(backend, NODE)
        found = seen(here.pod.path)
        assert found.ours == Ours((backend.value,), True, (), nothing=False)
        led = {one.name: (one.verdict, one.port, one.ours) for one in found.led}  # type: ignore[union-attr]
        assert led["out4"] == led["out6"] == ("redirect", 15001, True)
        assert led["in4"] == led["in6"] == ("redirect", 15006, True)


def test_part_of_the_way_back_is_missed() -> None:
    with pod() as here:
        here.install(Backend.NFTABLES, NODE)
        here.pod.shell("ip", "-6", "route", "flush", "table", "100")
        ours = seen(here.pod.path).ours
    assert ours == Ours(("nft",), True, ("the route of the way back is gone (ipv6)",), nothing=False)


def test_peers_rules_lead_to_the_peers_ports_and_are_named() -> None:
    """Of Linkerd's kind: what they lead to 4140 is not led to us, and the command that takes the rule away does."""
    with pod() as here:
        here.restore("iptables-nft", "*nat\n-A OUTPUT -p tcp -j REDIRECT --to-ports 4140\nCOMMIT\n")
        one = _out4(here)
        assert (one["verdict"], one["port"], one["ours"]) == ("redirect", 4140, False)
        assert one["by"].startswith("rule 1 of chain OUTPUT, iptables-nft table ip nat (")
        assert one["undo"] == f"nsenter --net={here.pod.path} iptables-nft -t nat -D OUTPUT 1"
        here.pod.shell(*one["undo"].split()[2:])
        assert _out4(here)["verdict"] == "accept"


def _out4(here: Here) -> dict[str, Any]:
    (one,) = [led for led in seen(here.pod.path).led if led.name == "out4"]  # type: ignore[union-attr]
    return {name: getattr(one, name) for name in ("verdict", "port", "ours", "by", "undo")}


def test_policy_that_drops_is_named() -> None:
    with pod() as here:
        here.nft("table ip x { chain out { type filter hook output priority 0; policy drop; }; }")
        one = _out4(here)
    assert (one["verdict"], one["undo"]) == ("drop", "")
    assert one["by"] == "the policy of chain out, nft table ip x"


def test_hostile_name_is_in_no_command() -> None:
    with pod() as here:
        rules = ":A;reboot - [0:0]\n-A OUTPUT -j A;reboot\n-A A;reboot -p tcp -j DROP\n"
        here.restore("iptables-nft", f"*filter\n{rules}COMMIT\n")
        one = _out4(here)
    assert one["by"].startswith("rule 1 of chain A;reboot, ") and (one["verdict"], one["undo"]) == ("drop", "")


def test_sidecars_rules_are_ours_too() -> None:
    with pod() as here:
        here.install(Backend.NFTABLES, SIDECAR)
        ours = seen(here.pod.path).ours
    assert isinstance(ours, Ours) and ours.steers


def test_kernel_alone_tells_of_a_namespace_without_rules(make_netns: Callable[[], Netns], tmp_path: Path) -> None:
    netns = make_netns()
    done = CliRunner().invoke(main, ["why", "--netns", str(netns.path), "--run-dir", str(tmp_path), "-o", "json"])
    rules = next(step for step in json.loads(done.stdout)["steps"] if step["step"] == "rules")
    assert rules["found"] == f"no rule of ours is in {netns.path}" and done.exit_code == 1


@pytest.mark.parametrize(
    ("limited", "step", "needed"),
    [(NOBODY, "netns", "CAP_SYS_ADMIN is needed"), (POWERLESS, "rules", "CAP_NET_ADMIN is needed there")],
    ids=["cannot enter", "cannot read"],
)
def test_missing_permission_names_the_capability(
    make_netns: Callable[[], Netns], tmp_path: Path, limited: tuple[str, ...], step: str, needed: str
) -> None:
    path = str(make_netns().path)
    command = [*limited, *headgate(), "why", "--netns", path, "--run-dir", str(tmp_path / "x"), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    found = next(one for one in json.loads(done.stdout)["steps"] if one["step"] == step)
    assert found["result"] == "unknown" and needed in found["found"], found


def test_addresses_of_every_interface_are_seen() -> None:
    with pod() as here:
        addresses = seen(here.pod.path).addresses
    assert {ip_address("127.0.0.1"), ip_address("::1")} < set(addresses)
