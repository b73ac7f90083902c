"""B39: a segment that conntrack takes for invalid (far out of the window: an old duplicate, or a guess) reaches a
steered connection. conntrack does not translate such a segment, so the pod's kernel would see a connection that it does
not have and answer with a reset that ends the caller's. It is dropped and counted, and the connection lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.life.talk import PORT, Echo, Talk, address, outside, until
from tests.netns.segments import inject, segment, sequence

INJECTED: Final = 20
_FAR: Final = 0x4000_0000


@pytest.fixture
def lab() -> Iterator[Lab]:
    """`client` is outside the mesh: its own kernel tracks nothing and lets every segment out."""
    with Lab(LabSpec((outside("client"), PodSpec("server")))) as made:
        made.start()
        yield made


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_b39_invalid_segments_are_dropped_and_reset_no_steered_connection(lab: Lab, family: int) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    with Echo(server), Talk(client, address(server, family)) as talk:
        talk.says()
        before = _dropped(lab)
        own, peer = address(client, family), address(server, family)
        for _ in range(INJECTED):
            next_sent, next_received = sequence(talk.socket)
            stale = segment(own, peer, (talk.local[1], PORT), next_sent + _FAR, next_received)
            client.call(inject, stale, str(peer))
        until("the invalid segments to meet the rule", lambda: _dropped(lab) >= before + INJECTED)
        talk.says(10)


def _dropped(lab: Lab) -> int:
    return kernel.packets_of(lab, "server", "in-forgotten")
