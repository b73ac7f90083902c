"""What agent and proxy answer becomes facts; another form of it is said, and never half understood."""

from dataclasses import replace
from typing import Any

import pytest

from agent.kernel.held import Found
from agent.plan import PlanSettings
from agent.supervisor.reports import PodFacts
from agent.supervisor.standing import Standing, agent_view, why_view
from agent.supervisor.unsteered import Unsteered
from agent.why import hearing
from agent.why.facts import Difference, LeftOut, Listed, Objects, Outside, Proved, Served, SourceKind, Unknown
from agent.why.hearing import Unreadable, heard
from tests.unit.agent.lives import POD, enrolled, told
from tests.unit.agent.test_cli import FLOW, FLOW6

STANDING = Standing(SourceKind.FILE, "/pods.yaml", ("pod 2: wrong",), True, "nft", Objects("/objects", True))
LIFE = enrolled().life


def _pod(**changes: Any) -> dict[str, Any]:
    return {**why_view(LIFE, PodFacts(), PlanSettings(), Found((), ()), None), **changes}


def test_agents_view_of_itself_is_read_back() -> None:
    agent = hearing.agent(agent_view(STANDING, [LIFE]))
    assert agent.source.pods == ("default/web",)
    assert (agent.source.kind, agent.source.place, agent.source.problems) == (
        SourceKind.FILE,
        "/pods.yaml",
        ("pod 2: wrong",),
    )
    assert (agent.proxy_connected, agent.backend, agent.objects) == (True, "nft", STANDING.objects)
    assert hearing.agent(agent_view(replace(STANDING, objects=None), [])).objects is None


def test_agents_view_of_an_enrolled_pod_is_read_back() -> None:
    facts = PodFacts(Unsteered(frozenset({FLOW, FLOW6})), drifts=2, drift="gone", conntrack_full=True)
    pod = hearing.pod(why_view(LIFE, facts, PlanSettings(), Found(("gone",), ("chain x",)), True))
    assert (pod.name, pod.uid, pod.addresses, pod.netns_path) == ("default/web", "u-1", POD.addresses, "/run/netns/web")
    assert (pod.state, pod.installed, pod.drained, pod.capturing) == ("proved", True, False, True)
    assert pod.difference == Difference(("gone",), ("chain x",))
    assert pod.proofs == tuple(Proved(name, "ok") for name in ("out4", "out6", "in4", "in6"))
    flows = ("10.0.0.5:40000 - 10.0.0.9:80", "[fd00::5]:40000 - [fd00::9]:80")
    assert pod.outside == Outside(2, 0, 0, flows)
    assert (pod.drifts, pod.last_drift, pod.conntrack_full, pod.object_known) == (2, "gone", True, True)


def test_agents_view_of_a_pod_that_is_not_enrolled_is_read_back() -> None:
    life = told().life
    pod = hearing.pod(why_view(life, PodFacts(), PlanSettings(), "no plan is in force", None))
    assert pod.difference == Unknown("no plan is in force")
    assert pod.proofs == Unknown("none was taken yet: the pod is seen")
    assert (pod.mesh_label, pod.left_out, pod.object_known) == (None, "", None)


def test_what_a_pod_asks_for_is_read_back() -> None:
    annotations = (
        ("headgate.io/exclude-outbound-ports", "5432"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "1"),
    )
    life = replace(LIFE, pod=replace(POD, annotations=annotations))
    wishes = hearing.pod(why_view(life, PodFacts(), PlanSettings(), Found((), ()), None)).wishes
    (origin,) = [one for one in wishes.origins if one.key == annotations[0][0]]
    assert (origin.value, origin.overruled) == ("5432", ((annotations[1][0], "1"),))
    wrong = replace(LIFE, pod=replace(POD, annotations=(("headgate.io/exclude-outbound-ports", "x"),)))
    assert "'x'" in hearing.pod(why_view(wrong, PodFacts(), PlanSettings(), Found((), ()), None)).wishes.error


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"left_out": None, "listed_at": None}, None),
        ({"left_out": None, "listed_at": "/run/netns/x"}, Listed("/run/netns/x")),
        ({"left_out": "is on the host's network", "listed_at": "/x"}, LeftOut("is on the host's network")),
    ],
)
def test_what_the_source_knows_of_a_stranger(body: dict[str, Any], found: Listed | LeftOut | None) -> None:
    assert hearing.listed(body) == found


SERVED = [
    {"uid": "u-1", "namespace": "default", "name": "web", "state": "served", "workers": [0, 2]},
    {"uid": "u-2", "namespace": "default", "name": "cart", "state": "pending", "reason": "taken"},
]


@pytest.mark.parametrize(
    ("name", "uid", "found"),
    [
        ("default/web", "u-1", Served("served", workers=(0, 2))),
        ("default/web", None, Served("served", workers=(0, 2))),
        ("default/cart", None, Served("pending", "taken")),
        ("default/web", "u-9", None),
        ("shop/web", None, None),
    ],
)
def test_proxys_word_of_a_pod(name: str, uid: str | None, found: Served | None) -> None:
    """By uid: the pod of that name may be another one by now."""
    assert hearing.served(SERVED, name, uid) == found


def test_proxys_policy() -> None:
    rejected = {"object": "VirtualService a/b", "field": "x", "reason": "y", "stale": False, "text": "b: y"}
    body = {"generation": 3, "in_force": [3, None], "rejections": [rejected]}
    proxy = hearing.proxy(body)
    assert (proxy.generation, proxy.in_force, proxy.rejections[0].text) == (3, (3, None), "b: y")


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": 5},
        {"installed": "yes"},
        {"drifts": None},
        {"drifts": True},
        {"addresses": ["x"]},
        {"addresses": 5},
        {"wishes": []},
        {"difference": {"changes": "gone"}},
        {"proofs": {"out4": {}}},
        {"outside": "10.0.0.5"},
    ],
)
def test_another_form_is_unreadable(changes: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        heard(hearing.pod, _pod(**changes))


@pytest.mark.parametrize("body", [None, [], "x", 5, {}])
def test_anything_else_is_unreadable(body: object) -> None:
    for read in (hearing.agent, hearing.pod, hearing.proxy, hearing.listed):
        with pytest.raises(Unreadable):
            heard(read, body)
