"""Two enrolled pods that talk: each connection is told from both sides, with what the proxy makes of it, or why not."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from agent.cli import conn
from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.connections.shown import Row, headgate_conn, is_at, opened_by, rows, said
from tests.netns.life.talk import WAIT_S, Echo, Talk, address, endpoint, until

EXCLUDED = 9001
PORT = 9000
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])


@pytest.fixture(scope="module")
def old() -> Iterator[list[Talk]]:
    with ExitStack() as stack:
        talks: list[Talk] = []
        yield talks
        for talk in talks:
            stack.callback(talk.close)


@pytest.fixture(scope="module")
def lab(old: list[Talk]) -> Iterator[Lab]:
    """`old` were opened before the rules. What is said to `server` at EXCLUDED goes direct."""
    annotations = (("headgate.io/exclude-outbound-ports", str(EXCLUDED)),)
    with Lab(LabSpec((PodSpec("client", annotations=annotations), PodSpec("server")))) as made, ExitStack() as stack:
        server = made.pod("server")
        for port in (PORT, EXCLUDED):
            stack.enter_context(Echo(server, port=port))
        for family in (4, 6):
            talk = Talk(made.pod("client"), address(server, family))
            talk.says(1)
            old.append(talk)
        made.start()
        yield made


def of(lab: Lab, pod: str, *words: str) -> list[Row]:
    return rows(f"default/{pod}", "--run-dir", str(lab.paths.run), *words)


def talked(lab: Lab, family: int, port: int = PORT) -> Talk:
    talk = Talk(lab.pod("client"), address(lab.pod("server"), family), port)
    talk.says(1)
    return talk


@FAMILIES
def test_a_steered_connection_is_told_by_both_pods(lab: Lab, family: int) -> None:
    server = str(address(lab.pod("server"), family))
    with talked(lab, family) as talk:
        out = opened_by(of(lab, "client"), talk.local)
        assert (out["direction"], out["listener"]) == ("outbound", {"port": 15001, "name": "outbound"})
        assert (out["path"], out["steered"], out["reason"]) == ("tcp", True, None)
        assert is_at(out["destination"], (server, PORT))
        assert out["source"]["pid"] == os.getpid(), "this process holds the client's socket"
        assert out["service"] == "PassthroughCluster" and 0 <= out["age_s"] < 60
        assert out["upstream"] == {"address": server, "port": PORT}
        near = (out["upstream_from"]["address"], out["upstream_from"]["port"])
        into = opened_by(of(lab, "server"), near)
        assert (into["direction"], into["listener"]["port"], into["path"]) == ("inbound", 15006, "tcp")
        assert is_at(into["destination"], (server, PORT))
        assert into["destination"]["pid"] == os.getpid(), "and the server's"
        assert into["workload"] == "default/server"


@FAMILIES
def test_the_proxys_other_half_is_no_row_of_its_own(lab: Lab, family: int) -> None:
    """One connection is four sockets in each namespace, or three, and two entries of conntrack."""
    with talked(lab, family) as talk:
        out = opened_by(of(lab, "client"), talk.local)
        near = (out["upstream_from"]["address"], out["upstream_from"]["port"])
        assert [row for row in of(lab, "client") if is_at(row["source"], near) or is_at(row["destination"], near)] == []
        into = opened_by(of(lab, "server"), near)
        inner = (into["upstream_from"]["address"], into["upstream_from"]["port"])
        found = [row for row in of(lab, "server") if is_at(row["source"], inner) or is_at(row["destination"], inner)]
        assert len(found) == (inner == near), found


@FAMILIES
def test_a_connection_older_than_the_rules_is_told_so_on_both_sides(lab: Lab, old: list[Talk], family: int) -> None:
    talk = old[0 if family == 4 else 1]
    for pod, direction in (("client", "outbound"), ("server", "inbound")):
        row = opened_by(of(lab, pod, "--unsteered"), talk.local)
        assert (row["reason"], row["path"], row["direction"]) == ("grandfathered", "direct", direction)
        assert row["age_s"] is None and row["age_at_least_s"] >= 0
        assert row["reason_text"] == "older than the rules"


@FAMILIES
def test_an_excluded_port_names_the_rule(lab: Lab, family: int) -> None:
    with talked(lab, family, EXCLUDED) as talk:
        row = opened_by(of(lab, "client"), talk.local)
        assert (row["path"], row["reason"]) == ("direct", "excluded")
        assert "out-capture-skip-ports: excluded ports are reached direct" in row["reason_text"]


def test_over_loopback_both_ends_are_one_row_and_not_counted_as_unsteered(lab: Lab) -> None:
    pod = lab.pod("client")
    with (
        closing(pod.netns.listen("127.0.0.1", 7000)) as listener,
        closing(pod.netns.connect("127.0.0.1", 7000)) as sock,
        closing(listener.accept()[0]),
    ):
        row = opened_by(of(lab, "client"), endpoint(sock.getsockname()))
        assert (row["direction"], row["reason"], row["path"]) == ("local", "loopback", "direct")
        assert row["source"]["pid"] == row["destination"]["pid"] == os.getpid()
        assert not [one for one in of(lab, "client", "--unsteered") if one["direction"] == "local"]


def test_http_is_told_with_its_service_and_what_is_kept_idle(lab: Lab) -> None:
    server = lab.pod("server")
    with (
        closing(server.netns.listen(server.address4, 8080)) as listener,
        closing(lab.pod("client").netns.connect(server.address4, 8080, timeout_s=WAIT_S)) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        listener.settimeout(WAIT_S)
        with closing(listener.accept()[0]) as served:
            served.settimeout(WAIT_S)
            assert served.recv(1000).startswith(b"GET")
            out = opened_by(of(lab, "client", "--path", "http"), endpoint(client.getsockname()))
            assert out["upstream"]["port"] == 8080
            served.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            (idle,) = of(lab, "server", "--path", "idle")
            assert idle["destination"]["pid"] == os.getpid()
            assert idle["source"]["pid"] in lab.workers()
            assert idle["listener"] is None


def test_all_pods_are_told_with_their_names(lab: Lab) -> None:
    with talked(lab, 4) as talk:
        answer = said("--run-dir", str(lab.paths.run))
        assert {row["pod"] for row in answer["connections"]} == {"default/client", "default/server"}
        assert answer["problems"] == []
        shown = headgate_conn("--run-dir", str(lab.paths.run), "-o", "wide").stdout
        assert shown.splitlines()[0].split()[:4] == ["POD", "PROTO", "WAY", "FROM"]
        assert f"{talk.local[0]}:{talk.local[1]}" in shown


def test_without_an_agent_the_namespace_tells_the_same(lab: Lab) -> None:
    """The proxy knows the namespace by its cookie."""
    with talked(lab, 4) as talk:
        netns = str(lab.pod("client").netns_path)
        row = opened_by(rows("--netns", netns, "--run-dir", str(lab.paths.run)), talk.local)
        assert row["path"] == "tcp" and row["pod"] is None


def test_without_a_proxy_the_kernel_tells_what_it_knows_and_the_rest_is_said(lab: Lab, tmp_path: Path) -> None:
    with talked(lab, 4) as talk:
        netns = str(lab.pod("client").netns_path)
        answer = said("--netns", netns, "--run-dir", str(tmp_path))
        row = opened_by(answer["connections"], talk.local)
        assert (row["path"], row["listener"]["port"], row["steered"]) == ("redirect", 15001, True)
        own = [one for one in answer["connections"] if one["path"] == "proxy"]
        assert any(one["destination"]["port"] == PORT for one in own), "the other half, known by its mark"
        assert any("no proxy at" in problem for problem in answer["problems"])


def test_filters_choose(lab: Lab) -> None:
    server = str(address(lab.pod("server"), 4))
    with talked(lab, 4) as talk, talked(lab, 6):
        run = ("default/client", "--run-dir", str(lab.paths.run))
        port = str(talk.local[1])
        for words in (("--to", server, "--path", "tcp"), ("--from", f":{port}"), ("--port", port)):
            (row,) = rows(*run, *words)
            assert is_at(row["source"], talk.local)
        assert all(row["protocol"] == "udp" for row in rows(*run, "--proto", "udp"))
        assert rows(*run, "--pid", "1") == []
        assert headgate_conn(*run, "--to", "nonsense").exit_code == 2


def test_udp_is_told_with_both_processes_and_that_nothing_leads_it(lab: Lab) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    with closing(client.netns.open_socket(kind=socket.SOCK_DGRAM)) as sender:
        sender.connect((str(server.address4), 9))
        sender.send(b"x")
        row = opened_by(of(lab, "client", "--proto", "udp"), endpoint(sender.getsockname()))
        assert (row["reason"], row["path"], row["steered"]) == ("udp", "direct", False)
        assert row["source"]["pid"] == os.getpid()


# ── What goes wrong meanwhile ──────────────────────────────────────────────────────────────────────────────────────
def worker_of(lab: Lab, pod: str) -> int:
    """Its pid."""
    index = next(one["workers"][0] for one in lab.proxy_get("/pods") if one["name"] == pod)
    pids: list[int] = [pid for pid in lab.workers() if f"worker {index} is ready, pid {pid}" in lab.log("proxy")]
    return pids[-1]


def test_a_worker_that_is_stopped_is_said_and_the_rest_shown(lab: Lab) -> None:
    with talked(lab, 4) as talk:
        pid = worker_of(lab, "client")
        os.kill(pid, signal.SIGSTOP)
        try:
            answer = said("default/client", "--run-dir", str(lab.paths.run))
        finally:
            with suppress(ProcessLookupError):  # its supervisor does not wait long either
                os.kill(pid, signal.SIGCONT)
        row = opened_by(answer["connections"], talk.local)
        assert (row["path"], row["listener"]["port"]) == ("redirect", 15001)
        assert any("did not answer" in problem for problem in answer["problems"])
        lab.wait_ready()


def test_a_killed_workers_connections_are_told_as_cut(lab: Lab) -> None:
    with talked(lab, 4) as talk:
        pid = worker_of(lab, "client")
        os.kill(pid, signal.SIGKILL)
        until("the end of the worker", lambda: pid not in lab.workers())
        row = opened_by(of(lab, "client"), talk.local)
        # Its kernel has told the client already, or will with the next word.
        assert row["path"] == "redirect" and "end is closed" in row["reason_text"]
        lab.wait_ready()


def test_a_pod_that_is_gone_is_a_problem_among_many_and_an_error_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = conn.ask

    def with_another(run_dir: Path, path: str) -> object:
        answer = real(run_dir, path)
        if path == "/pods":
            answer["pods"].append({"namespace": "shop", "name": "gone", "netns": "/run/netns/hg-not-there"})
        return answer

    monkeypatch.setattr(conn, "ask", with_another)
    answer = said("--run-dir", str(lab.paths.run))
    assert any(problem.startswith("shop/gone: ") and "hg-not-there" in problem for problem in answer["problems"])
    assert answer["connections"], "the others are shown"
    alone = headgate_conn("--netns", "/run/netns/hg-not-there")
    assert alone.exit_code == 1 and "/run/netns/hg-not-there: No such file or directory" in alone.stderr


def test_a_pod_that_nobody_knows_is_said(lab: Lab) -> None:
    done = headgate_conn("default/nobody", "--run-dir", str(lab.paths.run))
    assert done.exit_code == 1 and "no pod default/nobody on this node" in done.stderr


def test_without_agent_and_place_there_is_nothing_to_show(tmp_path: Path) -> None:
    done = headgate_conn("--run-dir", str(tmp_path))
    assert done.exit_code == 1 and "no agent at" in done.stderr
