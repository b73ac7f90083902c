"""B42, B43, B44: whatever is done to the rules is found within two seconds, undone within one, and told; steered
connections live through it, and other people's own rules stay as they are."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.kernel import sock_diag
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.life.talk import Chatter, Echo, Talk, address, until

OUT = 15001
_TCP_CLOSE = 7  # net/tcp_states.h
FOUND_S, HEALED_S = 2.0, 1.0
SLACK_S = 1.0
"""A busy test machine's; the metric below is the agent's own word and has none."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabSpec((PodSpec("client"), PodSpec("server")))) as made:
        made.start()
        yield made


def nft(*commands: str) -> Callable[[LabPod], None]:
    return lambda pod: [pod.run(["nft", *command.split()]) for command in commands] and None


def ip(*commands: str) -> Callable[[LabPod], None]:
    return lambda pod: [pod.run(["ip", *command.split()]) for command in commands] and None


def without_rule(rule: str) -> Callable[[LabPod], None]:
    return lambda pod: _delete(pod, rule)


def swapped(pod: LabPod) -> None:
    """The first of the chain becomes the last: what captures comes before what is exempted."""
    _delete(pod, "out-capture")
    text = 'tcp flags syn / fin,syn,rst,ack counter redirect to :15001 comment "headgate:out-capture"'
    pod.run(["nft", "insert", "rule", "inet", "headgate", "nat-output", *text.split()])


def _delete(pod: LabPod, rule: str) -> None:
    listing = pod.run(["nft", "--handle", "list", "table", "inet", "headgate"]).stdout
    chain = ""
    for line in listing.splitlines():
        if named := re.match(r"\tchain (\S+) ", line):
            chain = named[1]
        if f'"headgate:{rule}"' in line:
            pod.run(["nft", "delete", "rule", "inet", "headgate", chain, "handle", line.rsplit(" ", 1)[1]])
            return
    raise AssertionError(f"no rule {rule}")


SABOTAGE: dict[str, tuple[Callable[[LabPod], None], str, str]] = {
    # what is done; what is said of it; by whom
    "table deleted": (nft("delete table inet headgate"), "table inet headgate is gone", "nft"),
    "table flushed": (nft("flush table inet headgate"), "are missing", "nft"),
    "one rule gone": (without_rule("in-capture"), "in-capture", "nft"),
    "rules swapped": (swapped, "out-capture", "nft"),
    "chain gone": (nft("delete chain inet headgate nat-output"), "nat-output", "nft"),
    "foreign rule in our chain": (nft("insert rule inet headgate nat-output tcp dport 9000 accept"), "foreign", "nft"),
    "table dormant": (nft("add table inet headgate { flags dormant; }"), "dormant", "nft"),
    "ip rule gone": (ip("rule del preference 32764"), "ip rule 32764", "ip"),
    "IPv6 half of the return path gone": (
        ip("-6 rule del preference 32764", "-6 route flush table 100"), "IPv6", "ip",
    ),
    "route gone": (ip("route flush table 100"), "ip route local default", "ip"),
}  # fmt: skip


@pytest.mark.parametrize("case", SABOTAGE)
def test_b43_b44_sabotage_is_found_undone_and_told_while_steered_connections_live_on(lab: Lab, case: str) -> None:
    break_it, said, by = SABOTAGE[case]
    client, server = lab.pod("client"), lab.pod("server")
    lab.wait_proved("client", "server")
    wanted = _held(client)
    healed = _heals(lab)
    with Echo(server), Chatter(client, address(server, 4), 4) as load, Chatter(client, address(server, 6), 4) as load6:
        assert load.all_hear_more() and load6.all_hear_more()
        drifts = _drifts(lab)
        break_it(client)
        broken_s = time.monotonic()
        lab.wait("the drift to be undone", lambda: _drifts(lab) > drifts and _held(client) == wanted)
        assert time.monotonic() - broken_s < FOUND_S + HEALED_S + SLACK_S
        lab.wait_proved("client")
        assert load.all_hear_more() and load6.all_hear_more()
    told = next(event for event in _events(lab, "client") if event["reason"] == "RedirectionDrifted")
    last = kernel.pod_state(lab, "client")["last_drift"]
    assert said in last, last
    # rtnetlink names a process by its number only, and `ip` has ended before anybody can ask whose that was.
    who = by if by == "nft" else "(ip|a process that is not seen)"
    assert re.search(rf"changed by {who} \(pid \d+\)", last), last
    assert told["type"] == "Warning" and told["involvedObject"]["name"] == "client"
    assert any(event["reason"] == "RedirectionHealed" for event in _events(lab, "client"))
    after = _heals(lab)
    # All of this case's within twice the goal: a test machine may be busy with others.
    assert after[0] > healed[0] and after[0] - healed[0] == after[1] - healed[1]


def test_b44_after_the_whole_ruleset_was_flushed_it_is_said_how_many_connections_were_cut(lab: Lab) -> None:
    """Nothing holds the hooks then: what is said in the gap is not translated, and refused. What is silent, or whose
    words are lost on the way, lives on."""
    client, server = lab.pod("client"), lab.pod("server")
    lab.wait_proved("client", "server")
    wanted, to = _held(client), address(server, 4)
    with Echo(server), Talk(client, to) as silent, Chatter(client, to, 6) as load:
        silent.says()
        assert load.all_hear_more()
        until("what it said is acknowledged, the last answer too", lambda: _unacknowledged(client, silent) == "0")
        os.kill(lab.pid("agent"), signal.SIGSTOP)  # else it may heal before anything is lost
        try:
            client.run(["nft", "flush", "ruleset"])
            until("some of the proxy's answers to be refused", lambda: _proxys_ends(client) <= 4)
        finally:
            os.kill(lab.pid("agent"), signal.SIGCONT)
        lab.wait("the drift to be undone", lambda: _held(client) == wanted)
        lab.wait("it to be told", lambda: _events(lab, "client")[-1]["reason"] == "RedirectionHealed")
        message = _events(lab, "client")[-1]["message"]
        told = re.match(
            r"in force again: 0 connections went past the mesh meanwhile; (\d) steered connections were", message
        )
        assert told is not None and 3 <= int(told[1]) <= 6, message
        until("who was cut hears of it", lambda: sum(map(_is_reset, load.talks)) == int(told[1]))
        lab.wait_proved("client")
        silent.says()
        with Talk(client, to) as new:
            new.says()
            assert (silent.steered_to(), new.steered_to()) == (OUT, OUT)


def _proxys_ends(pod: LabPod) -> int:
    """Steered outbound connections that the proxy holds."""
    return sum(flow.local_port == OUT for flow in pod.call(sock_diag.established))


def _unacknowledged(pod: LabPod, talk: Talk) -> str:
    """Bytes in the send queue of the proxy's end."""
    (line,) = pod.run(
        ["ss", "-Htn", "sport", "=", f":{OUT}", "and", "dport", "=", f":{talk.local[1]}"]
    ).stdout.splitlines()
    return line.split()[2]


def _is_reset(talk: Talk) -> bool:
    """SO_ERROR would be eaten by the thread that chats: the state stays."""
    return talk.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def test_b42_rules_of_others_in_tables_of_their_own_survive_and_are_no_drift(lab: Lab) -> None:
    client = lab.pod("client")
    lab.wait_proved("client")
    drifts = _drifts(lab)
    client.run(["nft", "add table ip users { chain out { type nat hook output priority -150; } ; }"])
    client.run(["nft", "add rule ip users out tcp dport 7 counter"])
    try:
        users = client.run(["nft", "--stateless", "list", "table", "ip", "users"]).stdout
        lab.wait("their chain to be told", lambda: len(kernel.pod_state(lab, "client")["foreign_chains"]) == 1)
        assert "users" in kernel.pod_state(lab, "client")["foreign_chains"][0]
        assert _metric(lab, 'headgate_foreign_chains{namespace="default",pod="client"}') == 1
        assert _drifts(lab) == drifts
        client.run(["nft", "flush", "table", "inet", "headgate"])
        lab.wait("the drift to be undone", lambda: _drifts(lab) > drifts)
        lab.wait_proved("client")
        assert client.run(["nft", "--stateless", "list", "table", "ip", "users"]).stdout == users
    finally:
        client.run(["nft", "delete", "table", "ip", "users"])
    lab.wait("it to be gone", lambda: kernel.pod_state(lab, "client")["foreign_chains"] == [])


def _held(pod: LabPod) -> tuple[str, str]:
    """Rules and routing, without handles and the sets' elements."""
    tables = "".join(pod.run(["nft", "--stateless", "--terse", "list", "ruleset"]).stdout)
    return tables, kernel.routing(pod.netns)


def _drifts(lab: Lab) -> float:
    return _metric(lab, 'headgate_drift_total{namespace="default",pod="client"}')


def _heals(lab: Lab) -> tuple[float, float]:
    """All, and those that took two seconds at most."""
    return _metric(lab, "headgate_heal_seconds_count"), _metric(lab, 'headgate_heal_seconds_bucket{le="2.0"}')


def _metric(lab: Lab, series: str) -> float:
    page = lab.node.run(["curl", "-sf", "http://127.0.0.1:15014/metrics"]).stdout
    found = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    assert found is not None, f"no {series}"
    return float(found[1])


def _events(lab: Lab, pod: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.agent_get(f"/events/default/{pod}")["items"]
    return found
