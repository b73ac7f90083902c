"""B37: what was connected before enrolment lives on through the pod's whole life in the mesh, and after it."""

import pytest

from agent.lab.node import Lab
from tests.netns.life import kernel
from tests.netns.life.talk import Echo, Talk, address

MESH = "headgate.io/mesh"
OUT, IN = 15001, 15006


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b37_established_connections_outlive_install_and_removal_and_new_ones_are_steered(
    unsteered_lab: Lab, family: int
) -> None:
    lab = unsteered_lab
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    with Echo(server), Talk(client, to) as before:
        before.says()

        _joins(lab, "client")
        with Talk(client, to) as between:  # steered where it starts, older than the rules where it ends
            assert (before.steered_to(), between.steered_to()) == (None, OUT)
            _all_say(before, between)
            assert kernel.pod_state(lab, "client")["grandfathered_connections"] == 1

            _joins(lab, "server")
            captured = kernel.packets_of(lab, "server", "in-capture")
            with Talk(client, to) as steered:
                _all_say(before, between, steered)
                assert kernel.packets_of(lab, "server", "in-capture") > captured

                lab.set_label("server", MESH, "disabled")
                kernel.wait_state(lab, "server", "leaving")
                _all_say(before, between, steered)  # the drain form: `steered` is still translated at both ends
                with Talk(client, to) as later:
                    _all_say(before, between, steered, later)
                    assert kernel.packets(lab, "server")["in-capture"] is None
            kernel.wait_state(lab, "server", "disabled")
            assert kernel.rules(server.netns) == kernel.NO_RULES
            _all_say(before, between)

            lab.set_label("client", MESH, "disabled")
            kernel.wait_state(lab, "client", "leaving")
            _all_say(before, between)
        kernel.wait_state(lab, "client", "disabled")
        assert kernel.rules(client.netns) == kernel.NO_RULES
        with Talk(client, to) as after:
            _all_say(before, after)
            assert after.steered_to() is None


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b37_connection_opened_by_the_peer_before_the_install_talks_on_in_both_directions(
    unsteered_lab: Lab, family: int
) -> None:
    """The same seen from the pod that was called: nobody of the mesh stands at the other end."""
    lab = unsteered_lab
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server, speaks=True), Talk(client, address(server, family)) as before:
        before.socket.sendall(b"x")
        _hears(before)
        _joins(lab, "server")
        _hears(before)
        before.socket.sendall(b"y")
        lab.set_label("server", MESH, "disabled")
        kernel.wait_state(lab, "server", "disabled")
        _hears(before)


def _joins(lab: Lab, pod: str) -> None:
    lab.set_label(pod, MESH, None)
    lab.wait_proved(pod)


def _hears(talk: Talk) -> None:
    """What was sent after this call began: the buffer is emptied first."""
    talk.socket.setblocking(False)
    try:
        while talk.socket.recv(1 << 20):
            pass
    except BlockingIOError:
        pass
    talk.socket.settimeout(5)
    assert talk.socket.recv(65536) != b""


def _all_say(*talks: Talk) -> None:
    for talk in talks:
        talk.says()
