"""`headgate init`: what a container may count on, whoever's words it was started with."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.init.places import node_instead_of_pod
from agent.kernel import backends
from agent.kernel.backends import Backend
from agent.lab.namespaces import Netns
from tests.netns.cases.setups import holdings
from tests.netns.cases.wire import V4, V6, accept, dial_as, is_untouched, listen
from tests.netns.init.conftest import HEADGATE, Pod, assert_straight

BACKENDS: Final = [backend.value for backend in Backend]
FOREIGN_NFT: Final = """
table ip docker {
    chain out {
        type nat hook output priority -100; policy accept;
        ip daddr 10.99.0.1 counter accept
    }
}
table inet headgater {
    set s {
        type ipv4_addr
        elements = { 10.0.0.1 }
    }
}
"""
FOREIGN_IPTABLES: Final = """*nat
:SOMEBODYS_OUTPUT - [0:0]
-A OUTPUT -p tcp -m comment --comment "somebody: else's" -j SOMEBODYS_OUTPUT
-A SOMEBODYS_OUTPUT -d 10.99.0.0/16 -j RETURN
COMMIT
*mangle
-A PREROUTING -i net9 -j MARK --set-xmark 0x7/0xff
COMMIT
"""


def listed(place: Pod) -> str:
    """With counters, handles and all."""
    return place.pod.run(["nft", "-a", "list", "ruleset"]).stdout


def rules_of(place: Pod) -> str:
    return place.pod.run(["nft", "--stateless", "--handle", "list", "ruleset"]).stdout


# ── Once, twice, gone ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("backend", ["nft", "iptables-legacy"])
def test_b41_a_second_run_finds_the_rules_in_force_and_touches_nothing(place: Pod, backend: str) -> None:
    with place.steered("--backend", backend, "--exclude-outbound-ports", "5432,6000-6100") as first:
        with listen(place.peer.netns, V4.of(place.peer), 5432) as server:
            dial_as(1000, place.pod.netns, V4.of(place.peer), 5432).close()
            accept(server).close()
        before = (listed(place), counted(place))
        second = place.init("--backend", backend, "--exclude-outbound-ports", "5432,6000-6100")
        assert (listed(place), counted(place)) == before
        assert first.stdout.startswith("installed: ")
        assert second.stdout.startswith("already in force: ")
        assert second.stderr == ""


def counted(place: Pod) -> list[str]:
    """With the rules' counters, but neither the chains' own (a connection's last packet may come late) nor those of
    what comes in: a neighbour's report of its multicast groups (40 bytes, RFC 3376 4.2) comes whenever it likes."""
    lines = place.pod.run(["iptables-legacy-save", "-c", "-t", "nat"]).stdout.splitlines()
    return [_uncounted(line) for line in lines if not line.startswith("#")]


def _uncounted(line: str) -> str:
    if line.startswith(":"):
        return line.partition(" [")[0]
    comes_in = "-A PREROUTING" in line or "-A HEADGATE_CAPTURE_IN" in line
    return line.partition("] ")[2] if comes_in else line


@pytest.mark.parametrize("backend", BACKENDS)
def test_others_rules_are_byte_for_byte_what_they_were(place: Pod, backend: str) -> None:
    with foreign(place):
        before = holdings(place.pod)
        place.init("--backend", backend)
        assert place.init("--cleanup", "--dry-run").stdout.startswith("would remove: ")
        told = place.init("--cleanup").stdout
        assert told.startswith("removed: ")
        assert backend in told
        assert holdings(place.pod) == before
        assert place.init("--cleanup").stdout.startswith("nothing to remove")


@contextmanager
def foreign(place: Pod) -> Iterator[None]:
    try:
        place.pod.run(["nft", "-f", "-"], stdin=FOREIGN_NFT)
        for tool in ("iptables-nft-restore", "iptables-legacy-restore", "ip6tables-nft-restore"):
            place.pod.run([tool, "--noflush"], stdin=FOREIGN_IPTABLES.replace("10.99.0.0/16", ROUTES[tool]))
        yield
    finally:
        place.pod.run(["nft", "flush", "ruleset"])
        for table in ("nat", "mangle"):
            for flush in ("-F", "-X"):
                place.pod.run(["iptables-legacy", "-t", table, flush])


ROUTES: Final = {
    "iptables-nft-restore": "10.99.0.0/16",
    "iptables-legacy-restore": "10.99.0.0/16",
    "ip6tables-nft-restore": "fd99::/64",
}


def test_another_backend_takes_the_place_of_the_one_before(place: Pod) -> None:
    with place.steered("--backend", "iptables-legacy"):
        place.init("--backend", "nft")
        assert place.pod.call(backends.held) == {Backend.NFTABLES}
        assert "already in force" in place.init().stdout


def test_other_words_take_the_place_of_the_ones_before_in_one_step(place: Pod) -> None:
    target = (V4.of(place.peer), 7000)
    with place.steered(), listen(place.peer.netns, *target) as server:
        assert place.init("--exclude-outbound-ports", "7000").stdout.startswith("installed: ")
        with dial_as(1000, place.pod.netns, *target) as client, accept(server) as served:
            assert_straight(client, served)


def test_b46_two_at_once_end_in_one_set_of_rules(place: Pod) -> None:
    with place.steered("--exclude-outbound-ports", "1"):
        both = [
            place.pod.popen([HEADGATE, "init"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        told = [process.communicate(timeout=30) for process in both]
        assert [process.returncode for process in both] == [0, 0], told
        assert place.init().stdout.startswith("already in force")


# ── Nothing is done ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_dry_run_prints_the_plan_and_changes_nothing_and_needs_no_right(place: Pod) -> None:
    before = holdings(place.pod)
    powerless = ("setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all")
    assert "out-capture" in place.init("--dry-run", before=powerless).stdout
    assert holdings(place.pod) == before


@pytest.mark.parametrize(
    "words",
    [
        ("istio", "-n", "-b", "*", "-i", "*"),
        ("--dry-run", "linkerd", "-p", "4143", "-o", "4140", "-u", "2102"),
    ],
)
def test_the_peers_own_dry_runs_print_it_too(place: Pod, words: tuple[str, ...]) -> None:
    before = holdings(place.pod)
    assert "headgate" in place.init(*words).stdout
    assert holdings(place.pod) == before


def test_what_cannot_be_done_changes_nothing(place: Pod) -> None:
    """Every refusal by its words: tests/unit/agent/init/test_command.py."""
    before = holdings(place.pod)
    assert place.init("--exclude-interfaces", 'eth0"; flush ruleset', check=False).returncode == 2
    assert place.init("istio", "-b", "*", "-m", "TPROXY", check=False).returncode == 2
    assert holdings(place.pod) == before


# ── Where ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_another_namespace_is_steered_by_its_path(place: Pod) -> None:
    before = holdings(place.peer)
    with place.steered():
        done = subprocess.run(
            [HEADGATE, "init", "--netns", str(place.peer.netns_path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("installed: ")
        assert place.peer.call(backends.held) == {Backend.NFTABLES}
        words = ["istio", "--network-namespace", str(place.peer.netns_path), "--cleanup-only"]
        assert place.init(*words).stdout.startswith("removed: nft table inet headgate")
        assert place.pod.call(backends.held) == {Backend.NFTABLES}
    assert holdings(place.peer) == before


def test_b47_a_node_is_not_taken_for_a_pod_unless_it_is_meant(place: Pod) -> None:
    """A hostNetwork pod's init container: here a kubelet listens."""
    before = holdings(place.pod)
    with listen(place.pod.netns, V4.any, 10250):
        done = place.init(check=False)
        assert done.returncode == 1
        assert "a kubelet listens in it (port 10250)" in done.stderr
        assert holdings(place.pod) == before
        with place.steered("--force"):
            pass


def test_b47_the_machines_first_namespace_is_known_by_what_it_alone_has(place: Pod) -> None:
    """A pod has no such file; where these tests run in the first namespace (a machine, not a container), it is told."""
    assert place.pod.call(node_instead_of_pod) is None
    assert place.pod.call(Path("/proc/sys/net/core/somaxconn").exists), "the pod's own /proc/sys/net is read"
    first = Path("/proc/sys/net/core/netdev_max_backlog").exists()
    assert ("the machine's first one" in (node_instead_of_pod() or "")) is first


# ── With what rights ───────────────────────────────────────────────────────────────────────────────────────────────
CAPS: Final = "-all,+net_admin,+net_raw"
CONTAINER: Final = ("setpriv", "--bounding-set", CAPS, "--inh-caps", CAPS)
NOBODY: Final = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    *("--bounding-set", CAPS, "--inh-caps", CAPS, "--ambient-caps", CAPS),
)
READ_ONLY: Final = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    """for at in $(awk '{print $5}' /proc/self/mountinfo); do
         case $at in /proc*|/sys*) ;; *) mount -o remount,ro,bind "$at" ;; esac
       done 2>/dev/null
       for at in / /tmp /run; do ! touch "$at/written" 2>/dev/null || exit 99; done
       exec "$@"
    """,
    "sh",
)
"""Every mount but /proc and /sys; 99 when something is still to be written to."""


@pytest.mark.parametrize(
    ("rights", "backend"),
    [(CONTAINER, "nft"), (NOBODY, "nft"), (CONTAINER, "iptables-nft"), (NOBODY, "iptables-legacy")],
    ids=["root-nft", "nobody-nft", "root-iptables-nft", "nobody-iptables-legacy"],
)
def test_net_admin_and_net_raw_are_enough_and_no_file_is_written(
    place: Pod, rights: tuple[str, ...], backend: str
) -> None:
    """No CAP_SYS_ADMIN to make a namespace in, no file system to write to; twice, for the second run reads back."""
    with place.steered("--backend", backend, before=(*READ_ONLY, *rights)) as first:
        assert first.stdout.startswith("installed: ")
        before = rules_of(place)
        assert place.init(before=(*READ_ONLY, *rights)).stdout.startswith("already in force: ")
        assert rules_of(place) == before
        target = (V6.of(place.peer), 80)
        with (
            listen(place.peer.netns, *target) as server,
            listen(place.pod.netns, V6.any, 15001) as proxy,
            dial_as(1000, place.pod.netns, *target),
            accept(proxy),
        ):
            assert is_untouched(server)


@pytest.mark.parametrize(
    ("backend", "given", "missing"),
    [
        ("nft", "-all,+net_raw", "lacks CAP_NET_ADMIN;"),
        ("iptables-nft", "-all", "lacks CAP_NET_ADMIN;"),
        ("iptables-legacy", "-all,+net_admin", "lacks CAP_NET_RAW;"),
    ],
)
def test_one_right_short_the_error_names_it(place: Pod, backend: str, given: str, missing: str) -> None:
    before = holdings(place.pod)
    done = place.init(
        "--backend", backend, check=False, before=("setpriv", "--bounding-set", given, "--inh-caps", given)
    )
    assert done.returncode == 1
    assert missing in done.stderr
    assert "securityContext.capabilities" in done.stderr
    assert holdings(place.pod) == before


# ── What the peers' words also do ──────────────────────────────────────────────────────────────────────────────────
def test_istios_validation_tries_the_rules_and_ends_with_126_when_they_fail(place: Pod) -> None:
    words = ("istio", "-b", "*", "-i", "*", "-u", "1337", "--run-validation", "--probe-timeout", "500ms")
    failed = place.init(*words, "--skip-rule-apply", check=False)
    assert failed.returncode == 126
    assert "the rules do not hold" in failed.stderr
    with place.steered(*words) as done:
        assert "verified: " in done.stdout


def test_a_verification_that_fails_ends_with_the_status_that_was_asked_for(place: Pod) -> None:
    """Linkerd's repair controller looks for 95."""
    drop = "table ip z { chain o { type filter hook output priority -400; tcp dport != 22 oif != lo drop; }; }"
    with place.steered():
        place.pod.run(["nft", drop])
        try:
            failed = place.init("--verify", "--fail-exit-code", "95", check=False)
        finally:
            place.pod.run(["nft", "delete table ip z"])
        assert failed.returncode == 95
        assert "the rules do not hold" in failed.stderr
        assert "verified: " in place.init("--verify", "--fail-exit-code", "95").stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_b45_without_ipv6_the_rest_is_steered(make_netns: Callable[[], Netns], backend: str) -> None:
    netns = make_netns()
    netns.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1"])
    for said in ("installed: ", "already in force: "):
        result = netns.call(CliRunner().invoke, main, ["init", "--backend", backend])
        assert (result.exit_code, result.stdout[: len(said)]) == (0, said), result.stderr


def test_linkerds_close_wait_is_set_in_the_pod_alone(place: Pod) -> None:
    name = "net.netfilter.nf_conntrack_tcp_timeout_close_wait"
    outside = Path("/proc/sys", *name.split("."))
    before = outside.read_text() if outside.exists() else None
    with place.steered("linkerd", "-p", "4143", "-o", "4140", "-u", "2102", "--timeout-close-wait-secs", "77"):
        assert place.pod.run(["sysctl", "-n", name]).stdout.strip() == "77"
    assert (outside.read_text() if outside.exists() else None) == before


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("kumactl", ["install", "transparent-proxy", "--dry-run"]),
        ("pilot-agent", ["istio-iptables", "-n", "-b", "*"]),
        ("linkerd2-proxy-init", ["--simulate", "-p", "4143", "-o", "4140", "-u", "2102"]),
        ("headgate", ["istio-iptables", "-n", "-b", "*"]),
    ],
)
def test_under_a_peers_program_name_its_command_line_is_taken(
    place: Pod, tmp_path: Path, program: str, words: list[str]
) -> None:
    """The templates of Kuma and Linkerd name the program; an image has a link of that name."""
    link = tmp_path / program
    link.symlink_to(Path(sys.executable).with_name("headgate"))
    assert "headgate" in place.pod.run([str(link), *words]).stdout


def test_kumas_configuration_comes_from_a_file_or_standard_input(place: Pod, tmp_path: Path) -> None:
    config = "redirect: {outbound: {port: 25001}}\n"
    file = tmp_path / "config.yaml"
    file.write_text(config)
    words = [HEADGATE, "init", "--dry-run", "-o", "nft", "kuma", "--transparent-proxy-config"]
    for source, stdin in ((str(file), None), ("-", config)):
        assert "redirect to :25001" in place.pod.run([*words, source], stdin=stdin).stdout
