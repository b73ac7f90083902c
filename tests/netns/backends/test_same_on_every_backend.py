"""One plan, three backends: they capture and exempt the same packets, those that the wishes say. The kernel judges."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, settings

from agent.kernel import backends
from agent.kernel.backends import Backend
from agent.plan import InvalidPlan, PlanSettings, Steering, plan_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners
from tests.netns.backends.oracle import arrival, is_guests
from tests.netns.backends.packets import Packet, Way
from tests.netns.backends.place import Place, unique_prefix
from tests.netns.backends.wishes import packets, wishes

EXAMPLES = int(os.environ.get("HEADGATE_BACKEND_EXAMPLES", "24"))
"""A mode; each is some eighteen packets on three backends, and takes half a second. More where there is time."""
OWNERS = Owners(Ranges.of((1337, 1338)), Ranges.of(2102))
SETTINGS = {
    "node": PlanSettings(),
    "init": PlanSettings(owners=OWNERS),
    "transparent sidecar": PlanSettings(owners=OWNERS, passthrough=False),
    "sidecar like linkerd's": PlanSettings(owners=OWNERS, own_pod=False),
}


@pytest.fixture(scope="module")
def places() -> Iterator[dict[Backend, Place]]:
    """One pod a backend, alike in everything else."""
    with ExitStack() as stack:
        yield {
            backend: stack.enter_context(Place.make(f"{unique_prefix()}{number}"))
            for number, backend in enumerate(Backend)
        }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", SETTINGS)
def test_backends_capture_and_exempt_the_same_packets(places: dict[Backend, Place], mode: str) -> None:
    held = SETTINGS[mode]

    @settings(
        max_examples=EXAMPLES if mode in ("node", "init") else EXAMPLES // 3,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # shrinking would install a thousand plans: the example as it is says which packet
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(wishes, packets)
    def holds(wanted: Steering, sent: list[Packet]) -> None:
        try:
            plan = plan_of(wanted, held)
        except InvalidPlan:
            assume(False)
            return
        judged = [
            _possible(packet, held) for packet in sent if packet.way is not Way.PASSING or is_guests(packet, wanted)
        ]
        expected = [arrival(packet, wanted, held) for packet in judged]
        for outcome in expected:
            event(outcome.value)
        for backend, place in places.items():
            place.pod.call(backends.install, plan, held, backend)
            found = place.arrivals(judged)
            wrong = [
                f"{packet}: {seen if isinstance(seen, str) else seen.value}, not {should.value}"
                for packet, seen, should in zip(judged, found, expected, strict=True)
                if seen is not should
            ]
            assert not wrong, (backend, wrong)

    try:
        holds()
    finally:
        for backend, place in places.items():
            place.pod.call(backends.remove, held, backend)


def _possible(packet: Packet, held: PlanSettings) -> Packet:
    """Where the proxy is no sidecar nothing has the addresses that a sidecar calls from."""
    called_from = held.owners is not None and held.own_pod and not held.transparent
    return packet if called_from or packet.way is not Way.SENT else replace(packet, source=None)
