"""Agent and proxy killed together under load: the pod's traffic is refused, nothing of it leaves in clear, and it heals
when both are started, with the rules that were there."""

from __future__ import annotations

from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import ARRIVING, KEPT, Traffic
from tests.netns.faults.verdict import together
from tests.netns.life import kernel
from tests.netns.life.talk import until
from tests.netns.life.wire import Capture

REFUSED = 100


def test_agent_and_proxy_killed_together_fail_closed_and_heal_on_start(lab: Lab, loss: Record) -> None:
    client, server = lab.pod("client"), lab.pod("web-v1")
    # Straight to the pod: without our rules these calls would be answered, by the shortest way.
    direct = [f"http://{server.address4}:8080/", f"http://[{server.address6}]:8080/"]
    before = kernel.rules(client.netns)
    with Traffic(lab, (KEPT, ARRIVING), urls=direct) as traffic:
        traffic.kill_named("agent")
        traffic.kill_named("proxy")
        with Capture(lab.node, "veth0") as wire:
            until("refusals", lambda: traffic.answered() >= REFUSED and _refused(lab, direct) > 0)
        first = traffic.end()
    assert kernel.rules(client.netns) == before
    said = [one for one in wire.segments if one.payload]
    assert said == [], f"{len(said)} segments with payload went out in clear, such as {said[:1]}"
    # What waited in a queue is reset with it; what comes after is refused.
    assert first.failed.keys() <= {"refused", "reset"} and first.failed["refused"] >= REFUSED
    lab.start_proxy()
    lab.start_agent(cleanup_on_exit=False)
    lab.wait_ready()
    lab.wait_proved()
    assert kernel.rules(client.netns) == before
    with Traffic(lab, urls=direct) as traffic:
        traffic.goes_on(150)
        healed = traffic.end()
    loss("both-1-killed", together([first]), note="refused, as it must be; no payload on the wire")
    loss("both-2-started-again", healed)
    nothing_failed(healed, traffic)


def _refused(lab: Lab, urls: list[str]) -> int:
    """Requests of a load of its own that were refused; none of its requests is answered."""
    with RunningLoad(lab.pod("client"), urls, connections=4, seconds=5, requests=20) as load:
        found = load.result(timeout_s=10)["all"]
    assert found["ok"] == 0, found
    return int(found["reasons"].get("connect: Connection refused", 0))
