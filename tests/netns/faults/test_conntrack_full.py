"""B40 under load: a pod's conntrack table is full while it is called, or calls. What is kept alive loses nothing, new
connections fail closed, the agent says why, and once there is room they are served again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import pytest

from agent.lab.load import Ends, Shape
from agent.lab.loadrun import RunningLoad
from agent.lab.node import Lab, LabPod
from proxy.api.constants import MARK_MASK, PROXY_MARK
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import KEPT, PATIENCE_S, PAUSING, Traffic
from tests.netns.faults.verdict import Verdict, judge
from tests.netns.life.full_table import FullTable

NEW_PER_S: Final = 100
NEW_S: Final = 2.0
IMPATIENT_S: Final = 1.0
"""Of clients that do not wait for better times: shorter than the table stays full."""
ROOM: Final = 5000
"""Entries: each connection takes two here, and those of ended ones stay for two minutes."""


class Witness:
    """Counts packets of TCP in a pod's namespace, to a web server or from its clients: those of the proxy or led to it,
    and those that went past it. What conntrack drops comes to neither count."""

    def __init__(self, lab: Lab, pod: LabPod) -> None:
        self._pod = pod
        webs = [lab.pod("web-v1"), lab.pod("web-v2")]
        four = ", ".join(str(web.address4) for web in webs)
        six = ", ".join(str(web.address6) for web in webs)
        marked = f"meta mark & {MARK_MASK:#x} == {PROXY_MARK:#x}"
        to_web = (f"ip daddr {{ {four}, 10.96.0.10 }}", f"ip6 daddr {{ {six}, fd96::10 }}")
        leaving = "".join(
            f'oifname "eth0" meta l4proto tcp {to} {marked} counter name "proxy" accept;\n'
            f'oifname "eth0" meta l4proto tcp {to} counter name "past";\n'
            for to in to_web
        )
        # What is led to the proxy arrives at its port, and goes on to the application over lo.
        arriving = (
            'iifname "eth0" tcp dport 8080 counter name "past";\niifname "eth0" tcp dport 15006 counter name "proxy";\n'
        )
        self._rules = f"""table inet witness {{
            counter proxy {{ }}
            counter past {{ }}
            chain out {{ type filter hook postrouting priority 300; {leaving} }}
            chain in {{ type filter hook input priority 300; {arriving} }}
        }}"""

    def __enter__(self) -> Self:
        self._pod.run(["nft", "-f", "-"], stdin=self._rules)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pod.run(["nft", "delete", "table", "inet", "witness"])

    def counts(self) -> dict[str, int]:
        """Packets so far."""
        listing = json.loads(self._pod.run(["nft", "-j", "list", "counters", "table", "inet", "witness"]).stdout)
        counters = [item["counter"] for item in listing["nftables"] if "counter" in item]
        return {counter["name"]: counter["packets"] for counter in counters}


def new_connections(pod: LabPod, urls: tuple[str, ...], patience_s: float) -> Verdict:
    shape = Shape(Ends.CLIENT, per_s=NEW_PER_S, timeout_s=patience_s)
    with RunningLoad(pod, urls, connections=150, seconds=NEW_S, shape=shape) as load:
        return judge(load.result(timeout_s=NEW_S + patience_s + 10)["all"])


def says_why(lab: Lab, pod: str) -> None:
    """The agent, asked for a proof, which it makes of itself each minute."""
    verified = lab.agent_get(f"/pods/default/{pod}/verify", method="POST", timeout_s=20)
    assert verified["state"] == "installed" and verified["conntrack_full"] is True
    said = rf"pod default/{pod}: the conntrack table of the pod's namespace is full \(\d+ of \d+ entries"
    assert re.search(said, lab.log("agent"))
    events = lab.agent_get(f"/events/default/{pod}")["items"]
    (event,) = [event for event in events if event["reason"] == "ConntrackTableFull"]
    assert "raise net.netfilter.nf_conntrack_max" in event["message"]
    assert metric(lab, pod) == "1.0"


def says_that_there_is_room(lab: Lab, pod: str) -> None:
    lab.wait_proved()
    lab.agent_get(f"/pods/default/{pod}/verify", method="POST", timeout_s=20)
    assert f"pod default/{pod}: its conntrack table has room again" in lab.log("agent")
    assert metric(lab, pod) == "0.0"


def metric(lab: Lab, pod: str) -> str:
    page = lab.node.run(["curl", "-sf", "http://127.0.0.1:15014/metrics"]).stdout
    found = re.search(rf'^headgate_conntrack_full\{{namespace="default",pod="{pod}"\}} (\S+)$', page, re.MULTILINE)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Case:
    """Whose table is full, who opens connections meanwhile, and how the lines in docs/reliability.md are called."""

    pod: str
    newcomer: str
    key: str


CASES: Final = (
    Case("client", "client", "1-of-the-caller"),
    # The client's proxy has idle connections to the server: over these its new calls are answered all the same.
    Case("web-v1", "web-v2", "2-of-the-called"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.pod)
def test_b40_full_conntrack_table_under_load_keeps_what_is_kept_and_fails_the_rest_closed(
    lab: Lab, case: Case, loss: Record
) -> None:
    victim, newcomer, web = lab.pod(case.pod), lab.pod(case.newcomer), lab.pod("web-v1")
    direct = (f"http://{web.address4}:8080/", f"http://[{web.address6}]:8080/")
    with Witness(lab, victim) as witness, Traffic(lab, (KEPT, PAUSING), urls=direct) as traffic:
        with FullTable(victim) as full:
            traffic.goes_on()
            refused = new_connections(newcomer, direct, IMPATIENT_S)
            says_why(lab, case.pod)
            traffic.goes_on()
            seen = witness.counts()
            full.make_room(ROOM)
            says_that_there_is_room(lab, case.pod)
            served = new_connections(newcomer, direct, PATIENCE_S)
        traffic.goes_on()
        verdict = traffic.end()
    key = f"conntrack-{case.key}"
    loss(f"{key}-kept", verdict, note="connections that were there before, meanwhile and afterwards")
    loss(f"{key}-new", refused, note=f"fail closed, as they must: {seen['past']} packets went past the proxy")
    loss(f"{key}-room-again", served, note="new connections when there was room again")
    nothing_failed(verdict, traffic)
    assert (verdict.cut, verdict.connections) == (0, KEPT.connections + PAUSING.connections)
    assert seen["past"] == 0 and seen["proxy"] > 1000
    assert refused.failed.keys() == {"timeout"} and refused.lost > 0.9 * refused.sent
    assert served.failed == {} and served.sent >= NEW_PER_S
