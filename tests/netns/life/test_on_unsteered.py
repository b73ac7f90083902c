"""`--on-unsteered`: connections outside the mesh are left and told, or reset so that they come back through it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.kernel import conntrack, sock_diag
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec
from agent.plan import FlowKey, OnUnsteered, PlanSettings, build_plan
from agent.pods import PodRef
from agent.supervisor import inside, unsteered
from agent.supervisor.unsteered import Unsteered
from tests.netns.cases.wire import dial_as_proxy
from tests.netns.life import kernel
from tests.netns.life.talk import Echo, Talk, address, outside, until

MESH = "headgate.io/mesh"
OUT = 15001
SAME_PORT = 23456
SETTINGS = PlanSettings()
PLAN = build_plan(PodRef("uid-1", "default", "a"), SETTINGS)


@pytest.fixture(scope="module")
def resetting_lab() -> Iterator[Lab]:
    with Lab(LabSpec((outside("client"), outside("server")))) as lab:
        lab.start_proxy()
        lab.start_agent("--drain-s", "20", "--on-unsteered", "reset")
        lab.wait_ready()
        yield lab


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_at_the_first_install_older_connections_are_reset_at_both_ends_and_come_back_steered(
    resetting_lab: Lab, family: int
) -> None:
    lab = resetting_lab
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    try:
        with Echo(server) as echo, Talk(client, to) as before:
            before.says()
            lab.set_label("client", MESH, None)
            lab.wait_proved("client")
            _is_reset(before)
            until("the peer heard of it", lambda: not echo.calling())
            assert kernel.pod_state(lab, "client")["unsteered_connections"] == kernel.unsteered(0, 0)
            assert unsteered_in(client) == Unsteered()
            assert f"{before.local[1]} - " in lab.log("agent") and "were reset" in lab.log("agent")
            with Talk(client, to) as again:
                again.says()
                assert again.steered_to() == OUT
    finally:
        lab.set_label("client", MESH, "disabled")
        kernel.wait_state(lab, "client", "disabled")


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_what_slipped_by_while_the_rules_were_gone_is_reset_and_steered_connections_are_not(
    resetting_lab: Lab, family: int
) -> None:
    lab = resetting_lab
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    try:
        with ExitStack() as stack:
            stack.enter_context(Echo(server))
            lab.set_label("client", MESH, None)
            lab.wait_proved("client")
            steered = stack.enter_context(Talk(client, to))
            steered.says()
            os.kill(lab.pid("agent"), signal.SIGSTOP)
            try:
                client.run(["nft", "delete", "table", "inet", "headgate"])
                slipped = stack.enter_context(Talk(client, to))
                slipped.says()
            finally:
                os.kill(lab.pid("agent"), signal.SIGCONT)
            _is_reset(slipped)
            steered.says()
            assert steered.steered_to() == OUT
            lab.wait("it to be told", lambda: "went past the mesh meanwhile and were reset" in lab.log("agent"))
            assert kernel.pod_state(lab, "client")["unsteered_connections"] == kernel.unsteered(0, 0)
    finally:
        lab.set_label("client", MESH, "disabled")
        kernel.wait_state(lab, "client", "disabled")


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_kernel_that_cannot_reset_sockets_drops_what_they_send(
    bare_lab: Lab, family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONFIG_INET_DIAG_DESTROY off: out of the sets and forgotten by conntrack, the rules end it."""
    monkeypatch.setattr(sock_diag, "destroy", frozenset)
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    with Echo(server), Talk(client, address(server, family)) as before:
        before.says()
        applied = client.call(inside.install, PLAN, SETTINGS, OnUnsteered.RESET)
        assert applied.ended == {(*before.local, *before.remote)}
        before.socket.settimeout(0.5)
        before.socket.sendall(b"x")
        with pytest.raises(TimeoutError):
            before.socket.recv(1)
        counted = {counter.rule_id: counter.packets for counter in client.call(inside.counters)}
        assert counted["out-forgotten"] > 0


def test_loopback_and_link_local_connections_are_never_reset(bare_lab: Lab) -> None:
    client = bare_lab.pod("client")
    with client.netns.listen("127.0.0.1", 9100) as listener:
        own = client.netns.connect("127.0.0.1", 9100)
        accepted, _ = listener.accept()
        with own, accepted:
            applied = client.call(inside.install, PLAN, SETTINGS, OnUnsteered.RESET)
            assert applied.ended == frozenset()
            own.sendall(b"x")
            assert accepted.recv(1) == b"x"


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b55_who_slipped_by_from_a_port_that_the_proxy_speaks_from_too_is_told(bare_lab: Lab, family: int) -> None:
    """conntrack gives the later one another port: the socket of the former's name in the pod is the proxy's own."""
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    to, caller = str(address(server, family)), str(address(client, family))
    with Echo(server):
        server.call(inside.install, PLAN, SETTINGS)
        with dial_as_proxy(server.netns, to, 9000, source=(caller, SAME_PORT)) as proxys:
            server.run(["nft", "delete", "table", "inet", "headgate"])
            past = client.call(socket.create_connection, (to, 9000), 5, (caller, SAME_PORT))
            with past:
                for own in (past, proxys):
                    own.sendall(b"x")
                    assert own.recv(1) == b"x"
                healed = server.call(inside.restore, PLAN, SETTINGS, Unsteered())
                (slipped,) = healed.slipped
                assert (str(slipped[0]), slipped[1], str(slipped[2])) == (to, 9000, caller)
                assert unsteered_in(server).slipped == healed.slipped


def test_two_ways_of_being_outside_are_told_apart_by_the_kernel_itself(bare_lab: Lab) -> None:
    client, server = bare_lab.pod("client"), bare_lab.pod("server")
    with Echo(server), Talk(client, address(server, 4)) as older, Talk(client, address(server, 6)) as older6:
        client.call(inside.install, PLAN, SETTINGS)
        client.run(["nft", "delete", "table", "inet", "headgate"])
        with Talk(client, address(server, 4)) as slipped, Talk(client, address(server, 6)) as slipped6:
            for talk in (slipped, slipped6):
                talk.says()
            remembered = Unsteered(frozenset(_key(talk) for talk in (older, older6)))
            healed = client.call(inside.restore, PLAN, SETTINGS, remembered)
            late = frozenset(_key(talk) for talk in (slipped, slipped6))
            assert (healed.changed, healed.slipped, healed.cut) == (True, late, 0)
            assert unsteered_in(client) == Unsteered(remembered.grandfathered, late) == healed.unsteered
            again = client.call(inside.restore, PLAN, SETTINGS, Unsteered())
            assert (again.changed, again.unsteered) == (False, healed.unsteered)
            for talk in (older, older6, slipped, slipped6):
                original = conntrack.Tuple(*talk.local, *talk.remote)
                client.call(conntrack.forget, [original])
                talk.says()  # they are in the sets: conntrack may forget them

        def look() -> bool:
            return client.call(unsteered.forget_ended, unsteered_in(client), SETTINGS) == remembered

        until("what has ended is forgotten", look)
        assert unsteered_in(client) == remembered


def unsteered_in(pod: LabPod) -> Unsteered:
    return pod.call(unsteered.known)


def _key(talk: Talk) -> FlowKey:
    return (*talk.local, *talk.remote)


def _is_reset(talk: Talk) -> None:
    """By its own kernel (ECONNABORTED), as soon as it reads."""
    with pytest.raises(ConnectionAbortedError):
        talk.socket.recv(1)
