"""B42, B43, B44 under load: somebody changes a pod's rules. Found within 2 s, healed within 1 s, told with what was
changed and by whom; steered connections live on, except when the whole ruleset was flushed: then it is told how many
were cut."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import pytest

from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec, default_spec
from tests.netns.faults.conftest import Record
from tests.netns.faults.sabotage import ALL, Sabotage
from tests.netns.faults.traffic import ARRIVING, KEPT, PAUSING, Traffic
from tests.netns.life import kernel
from tests.netns.life.talk import Chatter, Echo, Talk, address

FOUND_S: Final = 2.0
HEALED_S: Final = 1.0
STEERED: Final = 8
DIAL_S: Final = 0.01
_ADDRESSES: Final = re.compile(r" and live on: [^;]*")
_STAMP: Final = re.compile(r"^(\d{4}-\S+Z) ")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The web lab, and a pod `server` for opaque connections, proved; each test leaves it healed."""
    spec = default_spec()
    with Lab(LabSpec((*spec.pods, PodSpec("server")), spec.objects)) as made:
        made.start_proxy()
        made.start_agent(cleanup_on_exit=False)
        made.wait_ready()
        made.wait_proved()
        yield made


class Dialler:
    """Somebody in a pod who opens a connection every few milliseconds, by IPv4 and IPv6 in turn, and keeps it."""

    def __init__(self, pod: LabPod, server: LabPod) -> None:
        self._pod = pod
        self._server = server
        self.talks: list[Talk] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dialler")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for talk in self.talks:
            talk.close()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def past_the_mesh(self) -> int:
        """How many of its connections go straight to their destination."""
        return sum(talk.steered_to() is None for talk in self.talks)

    def _run(self) -> None:
        for family in itertools.cycle((4, 6)):
            if self._stopping.wait(DIAL_S):
                return
            with suppress(OSError):  # refused, or its answer lost, while the rules are broken: it dials again
                self.talks.append(Talk(self._pod, address(self._server, family)))


@dataclass(frozen=True, slots=True)
class Told:
    """Of one pod, by the agent's log: seconds since the epoch, and the Events."""

    found_s: float
    healed_s: float
    drifted: str
    healed: str


def _lines(lab: Lab, pod: str, word: str) -> list[float]:
    """When the log says `word` of the pod."""
    found = []
    for line in lab.log("agent").splitlines():
        if f"pod default/{pod} {word}" in line:
            stamp = json.loads(line)["time"] if line.startswith("{") else _STAMP.match(line)[1]  # type: ignore[index]
            found.append(datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp())
    return found


def _events(lab: Lab, pod: str) -> dict[str, dict[str, Any]]:
    """The newest Event of each reason."""
    items = lab.agent_get(f"/events/default/{pod}")["items"]
    return {event["reason"]: event for event in items}


def _break_and_heal(lab: Lab, pod: str, sabotage: Sabotage) -> Told:
    """Returns when the pod's rules are what they were. AssertionError when they are not within the bounds' sum."""
    netns = lab.pod(pod).netns
    wanted = _held(lab, pod)
    before = len(_lines(lab, pod, "drifted")), len(_lines(lab, pod, "is healed"))
    sabotage.do(netns)
    done_s = time.time()

    def over() -> bool:
        return len(_lines(lab, pod, "is healed")) > before[1]

    lab.wait(f"{pod} to be healed of {sabotage.name}", over, timeout_s=FOUND_S + HEALED_S + 5)
    found = _lines(lab, pod, "drifted")[before[0]]
    healed = _lines(lab, pod, "is healed")[before[1]]
    events = _events(lab, pod)
    told = Told(
        max(0.0, found - done_s),
        healed - found,
        events["RedirectionDrifted"]["message"],
        events["RedirectionHealed"]["message"],
    )
    assert _held(lab, pod) == wanted
    return told


def _held(lab: Lab, pod: str) -> str:
    """What is in force, but for handles, and for sets: who is older than the rules may differ."""
    netns = lab.pod(pod).netns
    text = kernel.without_handles(kernel.rules(netns))
    text = re.sub(r"elements = \{[^}]*\}", "", text)
    return "\n".join(line.strip() for line in text.splitlines() if line.strip()) + kernel.routing(netns)


@pytest.mark.parametrize("sabotage", ALL, ids=lambda sabotage: sabotage.name)
def test_b42_b43_b44_rules_changed_under_load_are_found_told_and_healed(
    lab: Lab, sabotage: Sabotage, loss: Record
) -> None:
    client, server = lab.pod("client"), lab.pod("server")
    direct = [f"http://{lab.pod('web-v1').address4}:8080/", f"http://[{lab.pod('web-v1').address6}]:8080/"]
    with (
        Traffic(lab, (KEPT, PAUSING, ARRIVING), urls=direct) as traffic,
        Echo(server),
        Chatter(client, address(server, 4), STEERED) as four,
        Chatter(client, address(server, 6), STEERED) as six,
    ):
        assert four.all_hear_more() and six.all_hear_more()
        with Dialler(client, server) as dialler:
            told = [_break_and_heal(lab, "client", sabotage)]
            dialler.stop()
            past = dialler.past_the_mesh()
        told.append(_break_and_heal(lab, "web-v1", sabotage))
        if not sabotage.cuts:
            assert four.all_hear_more() and six.all_hear_more()
            traffic.goes_on()
        with Talk(client, address(server, 4)) as new:
            new.says()
            assert new.steered_to() == 15001
        verdict = traffic.end()
    found_s, healed_s = max(one.found_s for one in told), max(one.healed_s for one in told)
    loss(
        f"drift-{ALL.index(sabotage):02}-{sabotage.name}", verdict, found_s=found_s, healed_s=healed_s,
        note=_ADDRESSES.sub("", told[0].healed.removeprefix("in force again: ").partition(" (was")[0]),
    )  # fmt: skip
    assert found_s <= FOUND_S and healed_s <= HEALED_S, told
    for one in told:
        assert sabotage.said in one.drifted, one
        assert re.search(r"changed by (nft|ip|a process that is not seen) \(pid \d+\)", one.drifted), one
    if not sabotage.cuts:
        assert told[0].healed.startswith(f"in force again: {past} connections went past the mesh"), told[0]
        assert verdict.failed == {}, (verdict, traffic.losses)
        assert verdict.cut == 0
