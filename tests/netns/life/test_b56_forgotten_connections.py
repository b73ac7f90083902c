"""B56: conntrack forgets everything under load. No byte of a steered connection goes out in clear, in or out of a pod;
what was connected before the install lives on, and new connections are steered as ever.

The connections that were forgotten are lost: to know nothing of a connection and to keep it in the mesh cannot be had.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab
from agent.lab.spec import LabSpec
from tests.netns.life import kernel
from tests.netns.life.talk import MARKER, Chatter, Echo, Endpoint, address, outside
from tests.netns.life.wire import Capture, Segment

MESH = "headgate.io/mesh"
STEERED = 8
OUT, IN = 15001, 15006
_FORGOTTEN = ("out-forgotten", "out-forgotten-proxy", "in-forgotten")
VIRTUAL = ("10.96.0.10", "fd96::10")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """One for each test: what an application never got rid of is sent again for minutes after its connection ended."""
    with Lab(LabSpec((outside("client"), outside("server")))) as made:
        made.start_proxy()
        made.start_agent("--drain-s", "1")
        made.wait_ready()
        yield made


def _forget(lab: Lab, pod: str, dropped_at_least: int) -> None:
    """Empties the pod's conntrack, and waits until so many segments that it no longer knows have met the rules."""

    def dropped() -> int:
        return sum(kernel.packets_of(lab, pod, rule) for rule in _FORGOTTEN)

    before = dropped()
    lab.pod(pod).run(["conntrack", "--flush"])
    lab.wait("forgotten segments", lambda: dropped() >= before + dropped_at_least)


def _said(wire: Capture) -> list[Segment]:
    """The segments that carry what was said, whole or a part."""
    said = [segment for segment in wire.segments if MARKER[:8] in segment.payload]
    assert said, "the capture saw nothing of what was said: it proves nothing"
    return said


def _ends(*chatters: Chatter) -> set[frozenset[Endpoint]]:
    return {frozenset((talk.local, talk.remote)) for chatter in chatters for talk in chatter.talks}


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b56_client_s_conntrack_flushed_under_load_puts_no_payload_on_the_wire_in_clear(lab: Lab, family: int) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    with Echo(server, speaks=True), Chatter(client, to, 2) as grandfathered:
        lab.set_label("client", MESH, None)
        lab.wait_proved("client")
        with Capture(lab.node, "veth0") as wire, Chatter(client, to, STEERED) as steered:
            assert steered.all_hear_more() and grandfathered.all_hear_more()
            assert [talk.steered_to() for talk in steered.talks] == [OUT] * STEERED
            for _ in range(3):
                _forget(lab, "client", STEERED)
                assert grandfathered.all_hear_more()
            with Chatter(client, to, 2) as later:
                assert later.all_hear_more()
                assert [talk.steered_to() for talk in later.talks] == [OUT, OUT]
            applications_own = _ends(steered)
        # What the proxy sends for them has another source port: these pairs of ends are the applications' alone.
        assert [said for said in _said(wire) if said.ends in applications_own] == []
        assert grandfathered.all_hear_more()


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b56_server_s_conntrack_flushed_under_load_lets_nothing_past_the_proxy_in_or_out(lab: Lab, family: int) -> None:
    """The caller is outside the mesh, so each of its connections has one pair of ends on the wire: whatever else
    carries what was said is an answer of application or proxy that lost its translation."""
    client, server = lab.pod("client"), lab.pod("server")
    to = address(server, family)
    with Echo(server, speaks=True) as echo, Chatter(client, to, 2) as grandfathered:
        lab.set_label("server", MESH, None)
        lab.wait_proved("server")
        accepted = len(echo.callers)
        with Capture(lab.node, "veth1") as wire, Chatter(client, to, STEERED) as steered:
            assert steered.all_hear_more() and grandfathered.all_hear_more()
            own = {talk.local for talk in steered.talks}
            met = set(echo.callers[accepted:])
            assert len(met) == STEERED and not met & own, "the application has met the callers without the proxy"
            for _ in range(3):
                _forget(lab, "server", STEERED)
                assert grandfathered.all_hear_more()
            with Chatter(client, to, 2) as later:
                assert later.all_hear_more()
            callers_own = _ends(steered, grandfathered, later)
        assert [said for said in _said(wire) if said.ends not in callers_own] == []
        assert not set(echo.callers[2:]) & own
        assert grandfathered.all_hear_more()


def test_b56_http_load_on_a_service_address_whose_conntrack_is_flushed_never_shows_that_address_on_the_wire() -> None:
    """Nothing but a packet past the proxy carries the Service's own address, in either family."""
    with Lab() as lab:
        lab.start()
        client = lab.pod("client")
        urls = [f"http://{VIRTUAL[0]}/", f"http://[{VIRTUAL[1]}]/"]
        with Capture(lab.node, "veth0") as wire, RunningLoad(client, urls, connections=4, seconds=60) as load:
            load.until(20, lambda _: None, timeout_s=10)
            for _ in range(3):
                _forget(lab, "client", 1)
        assert any(b"HTTP/1.1 200" in segment.payload for segment in wire.segments)
        past = [s for s in wire.segments if {str(s.source), str(s.destination)} & set(VIRTUAL)]
        assert past == []
        assert client.run(["curl", "-sf", "--max-time", "5", urls[0]]).returncode == 0
