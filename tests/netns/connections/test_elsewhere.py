"""Namespaces that no agent knows: a peer's, a plain one, one whose rules came later; and who may not look."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent.kernel.backends import Backend
from agent.plan.ranges import Ranges
from agent.plan.steering import Steering
from tests.netns.connections.shown import Row, headgate_conn, is_at, opened_by, rows, said
from tests.netns.kernel.scratch import NODE4, Scratch, pod_and_node
from tests.netns.life.talk import WAIT_S, endpoint
from tests.netns.rules.here import NODE, Here

REPOSITORY = Path(__file__).resolve().parents[3]
STRANGER = Path(__file__).with_name("stranger.py")
LINKERD_UID = 2102

# linkerd2-proxy-init, as it writes its rules (internal/iptables/iptables.go)
COMMENT = "proxy-init/redirect-all-outgoing-to-proxy-port"
LINKERD = f"""\
*nat
:PROXY_INIT_OUTPUT - [0:0]
-A OUTPUT -m comment --comment "proxy-init/install-proxy-init-output" -j PROXY_INIT_OUTPUT
-A PROXY_INIT_OUTPUT -m owner --uid-owner {LINKERD_UID} -m comment --comment "proxy-init/ignore-proxy-user-id" -j RETURN
-A PROXY_INIT_OUTPUT -o lo -m comment --comment "proxy-init/ignore-loopback" -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -m multiport --dports 25 -m comment --comment "proxy-init/ignore-port-25" -j RETURN
-A PROXY_INIT_OUTPUT -p tcp -m comment --comment "{COMMENT}" -j REDIRECT --to-port 4140
COMMIT
"""


@pytest.fixture
def here() -> Iterator[Here]:
    with pod_and_node() as (pod, node), ExitStack() as stack:
        for port in (80, 25):
            stack.enter_context(closing(_listen(node, NODE4, port)))
        yield Here(pod)


def _listen(scratch: Scratch, host: str, port: int) -> socket.socket:
    return scratch.run(socket.create_server, (host, port))


def _connect(here: Here, port: int) -> socket.socket:
    return here.pod.run(socket.create_connection, (NODE4, port), WAIT_S)


@contextmanager
def stranger(
    here: Here, command: bytes, uid: int, *rest: object, waits: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Ready; or, where it `waits`, listening."""
    words = [sys.executable, str(STRANGER), command.hex(), str(uid), *map(str, rest)]
    child = subprocess.Popen(
        ["nsenter", f"--net={here.pod.path}", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "listens\n"
        if not waits:
            assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def conn(here: Here, tmp_path: Path, *words: str) -> list[Row]:
    return rows("--netns", here.pod.path, "--run-dir", str(tmp_path), *words)


# ── A peer's ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_linkerds_sidecar_is_told_by_its_port_and_what_it_leaves_alone_by_its_rule(here: Here, tmp_path: Path) -> None:
    here.restore("iptables-nft", LINKERD)
    with (
        stranger(here, b"linkerd2-proxy", LINKERD_UID, 4140, NODE4, 80, waits=True) as proxy,
        closing(_connect(here, 80)) as led,
        closing(_connect(here, 25)) as excluded,
    ):
        assert proxy.stdout is not None and proxy.stdout.readline() == "ready\n"
        found = conn(here, tmp_path)
        row = opened_by(found, endpoint(led.getsockname()))
        assert (row["path"], row["listener"]) == ("redirect", {"port": 4140, "name": "linkerd outbound"})
        assert is_at(row["destination"], (NODE4, 80)) and row["steered"] and row["reason"] is None
        (own,) = [one for one in found if one["path"] == "proxy"]
        assert own["source"]["command"] == "linkerd2-proxy" and own["source"]["uid"] == LINKERD_UID
        row = opened_by(found, endpoint(excluded.getsockname()))
        assert (row["path"], row["reason"]) == ("direct", "excluded")
        assert "PROXY_INIT_OUTPUT rule 3" in row["reason_text"] and "25" in row["reason_text"]


def test_a_connection_that_waits_for_its_proxy_is_in_the_queue(here: Here, tmp_path: Path) -> None:
    here.restore("iptables-nft", LINKERD)
    with closing(_listen(here.pod, "127.0.0.1", 4140)), closing(_connect(here, 80)) as led:
        row = opened_by(conn(here, tmp_path), endpoint(led.getsockname()))
        assert row["path"] == "redirect" and "queue" in row["reason_text"]


# ── Rules that came later ──────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("comment", "reason"),
    [("", "grandfathered"), ("headgate:drift", "drift"), ("headgate:rules-changed", "rules_changed")],
)
def test_why_it_is_outside_the_mesh_is_what_the_kernels_sets_say(
    here: Here, tmp_path: Path, comment: str, reason: str
) -> None:
    with closing(_connect(here, 80)) as sock:
        here.install(Backend.NFTABLES, NODE)
        local = endpoint(sock.getsockname())
        said_of_it = f' comment "{comment}"' if comment else ""
        element = f"{local[0]} . {local[1]} . {NODE4} . 80{said_of_it}"
        here.nft(f"delete element inet headgate grandfathered4 {{ {local[0]} . {local[1]} . {NODE4} . 80 }}")
        here.nft(f"add element inet headgate grandfathered4 {{ {element} }}")
        assert opened_by(conn(here, tmp_path, "--unsteered"), local)["reason"] == reason


@pytest.mark.parametrize("backend", Backend)
def test_what_no_set_remembers_and_the_rules_would_lead_away_is_told_so(
    here: Here, tmp_path: Path, backend: Backend
) -> None:
    with closing(_connect(here, 80)) as sock:
        here.install(backend, NODE)
        if backend is Backend.NFTABLES:
            here.nft("flush set inet headgate grandfathered4")
        row = opened_by(conn(here, tmp_path), endpoint(sock.getsockname()))
        assert (row["reason"], row["path"]) == ("past_the_rules", "direct")
        assert "redirect to port 15001" in row["reason_text"]


def test_an_excluded_network_is_told_with_the_rules_own_meaning(here: Here, tmp_path: Path) -> None:
    here.install(Backend.NFTABLES, NODE, Steering(exclude_outbound_networks=(ip_network("10.99.0.0/24"),)))
    with closing(_connect(here, 80)) as sock:
        row = opened_by(conn(here, tmp_path), endpoint(sock.getsockname()))
        assert row["reason"] == "excluded"
        assert "out-capture-skip-networks4: excluded networks are reached direct" in row["reason_text"]


def test_an_excluded_user_is_told_by_the_sockets_owner(here: Here, tmp_path: Path) -> None:
    here.install(Backend.NFTABLES, NODE, Steering(exclude_uids=Ranges.of(4000)))
    with stranger(here, b"direct", 4000, NODE4, 80):
        (row,) = [one for one in conn(here, tmp_path) if one["source"]["uid"] == 4000]
        assert row["reason"] == "excluded" and "excluded users" in row["reason_text"]


# ── A plain one ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_where_no_rule_is_it_is_said(here: Here, tmp_path: Path) -> None:
    with closing(_connect(here, 80)) as sock:
        row = opened_by(conn(here, tmp_path), endpoint(sock.getsockname()))
        assert (row["direction"], row["reason"]) == ("outbound", "no_rule")


def test_a_hostile_command_reaches_no_terminal(here: Here, tmp_path: Path) -> None:
    with stranger(here, b"\x1b[31mx\n\x07\xff", 1000, NODE4, 80):
        for output in ("table", "wide", "json", "yaml"):
            done = headgate_conn("--netns", here.pod.path, "--run-dir", str(tmp_path), "-o", output)
            assert done.exit_code == 0 and "\x1b" not in done.stdout and "\x07" not in done.stdout
            assert "x1b[31mx" in done.stdout
        (row,) = conn(here, tmp_path)
        assert row["source"]["command"].startswith("\\x1b[31mx\\n\\x07") and row["source"]["command"].isprintable()


def test_a_namespace_in_which_nothing_lives(tmp_path: Path) -> None:
    with Scratch() as scratch:
        done = headgate_conn("--netns", scratch.path, "--run-dir", str(tmp_path))
        assert (done.exit_code, done.stdout) == (0, "") and "no connection" in done.stderr


# ── Who may not look ───────────────────────────────────────────────────────────────────────────────────────────────
def unprivileged(here: Here, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As nobody, in the pod's namespace."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    command = [sys.executable, "-m", "agent", "conn", "--run-dir", str(tmp_path), *words]
    return subprocess.run(
        ["nsenter", f"--net={here.pod.path}", *nobody, *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_without_capabilities_what_can_be_shown_is_and_the_rest_is_said_once(here: Here, tmp_path: Path) -> None:
    with closing(_connect(here, 80)) as sock:
        done = unprivileged(here, tmp_path, "--self", "-o", "json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        row = opened_by(answer["connections"], endpoint(sock.getsockname()))
        assert (row["source"]["pid"], row["reason"]) == (None, "unknown")
        told = "\n".join(answer["problems"])
        assert told.count("CAP_SYS_PTRACE") == 1
        assert "conntrack could not be read" in told and "CAP_NET_ADMIN" in told


def test_who_may_not_enter_is_told_what_it_takes(here: Here, tmp_path: Path) -> None:
    done = unprivileged(here, tmp_path, "--netns", "/proc/1/ns/net")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Permission denied" in done.stderr


def test_pod_and_netns_at_once_are_refused() -> None:
    done = headgate_conn("default/x", "--self")
    assert done.exit_code == 2 and "give one of POD, --netns and --self" in done.stderr


def test_the_problems_are_said_on_the_error_output_once(here: Here, tmp_path: Path) -> None:
    done = headgate_conn("--netns", here.pod.path, "--run-dir", str(tmp_path))
    assert done.stderr.count("no proxy at") == 1 and "no proxy at" not in done.stdout
    (problem,) = said("--netns", here.pod.path, "--run-dir", str(tmp_path))["problems"]
    assert problem.startswith("no proxy at")
