"""A pod with a sidecar behind Istio's rules, a real Envoy or headgate's own: without an agent, as an init container
left it. headgate's tells what it does; of Envoy the kernel tells what it can."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.kernel.backends import Backend
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.connections.shown import Row, is_at, opened_by, rows
from tests.netns.life.talk import Echo, Talk, address
from tests.netns.sidecar.rules import ISTIO, ruled
from tests.netns.sidecar.sidecars import USER, Kind, prepared

PORT = 9000
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])


@dataclass(frozen=True, slots=True)
class Place:
    kind: Kind
    pod: LabPod
    peer: LabPod
    run: Path

    def rows(self) -> list[Row]:
        return rows("--netns", str(self.pod.netns_path), "--run-dir", str(self.run))

    @property
    def tells(self) -> bool:
        return self.kind is not Kind.ENVOY


@pytest.fixture(scope="module", params=[Kind.ENVOY, Kind.PLAIN], ids=str)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    kind: Kind = request.param
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab, ExitStack() as stack:
        pod, peer = lab.pod("pod"), lab.pod("peer")
        stack.enter_context(ruled(pod, "--backend", Backend.IPTABLES_NFT.value, *ISTIO))
        sidecar = stack.enter_context(prepared(lab, pod, kind))
        stack.enter_context(sidecar.running())
        for one in (pod, peer):
            stack.enter_context(Echo(one, port=PORT))
        yield Place(kind, pod, peer, sidecar.directory / "run")


@FAMILIES
def test_what_the_application_opens(place: Place, family: int) -> None:
    there = str(address(place.peer, family))
    with Talk(place.pod, address(place.peer, family), PORT) as talk:
        talk.says(1)
        found = place.rows()
        row = opened_by(found, talk.local)
        assert (row["direction"], row["listener"]["port"], row["steered"]) == ("outbound", 15001, True)
        assert is_at(row["destination"], (there, PORT)) and row["source"]["pid"] == os.getpid()
        assert row["path"] == ("tcp" if place.tells else "redirect")
        own = [one for one in found if one["path"] == "proxy" and is_at(one["destination"], (there, PORT))]
        assert [one["source"]["uid"] for one in own] == ([] if place.tells else [USER]), "the other half"


@FAMILIES
def test_what_is_opened_to_the_application(place: Place, family: int) -> None:
    here = str(address(place.pod, family))
    with Talk(place.peer, address(place.pod, family), PORT) as talk:
        talk.says(1)
        found = place.rows()
        row = opened_by(found, talk.local)
        assert (row["direction"], row["listener"]["port"], row["steered"]) == ("inbound", 15006, True)
        assert is_at(row["destination"], (here, PORT))
        if place.tells:
            assert row["path"] == "tcp" and row["destination"]["pid"] == os.getpid()
        else:
            (own,) = [one for one in found if one["path"] == "proxy" and one["destination"]["port"] == PORT]
            assert own["destination"]["pid"] == os.getpid() and own["source"]["uid"] == USER


def test_nothing_is_left_that_looks_unsteered(place: Place) -> None:
    with Talk(place.pod, address(place.peer, 4), PORT) as out, Talk(place.peer, address(place.pod, 4), PORT) as into:
        out.says(1)
        into.says(1)
        unsteered = [one for one in place.rows() if not one["steered"] and one["reason"] != "loopback"]
        assert unsteered == []
