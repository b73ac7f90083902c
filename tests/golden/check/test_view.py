"""What `headgate check` prints, word for word."""

import json
import os
from pathlib import Path

from agent.check import view
from agent.check.after import after
from agent.check.before import before
from agent.check.facts import Namespace, PodState, Webhook
from agent.check.lines import Level, Line
from tests.unit.agent.check.clusters import NOW_S, agent, cluster, daemonset, proved

_HERE = Path(__file__).parent


def _same(name: str, text: str) -> None:
    path = _HERE / name
    if os.environ.get("REFRESH_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def _broken() -> tuple[Line, ...]:
    return after(
        cluster(
            agents=(
                agent("n1", PodState("shop", "web", "failed", "not proved", ("out4: went direct",))),
                agent(
                    "n2", proved("db"), problems=("CNI: /host/cni/net.d: No space left on device", "may not patch x")
                ),
            ),
            daemonsets=(daemonset("headgate-agent", ready=1), daemonset("headgate-proxy")),
            webhook=Webhook(("Fail",), (NOW_S - 1,), 0),
        )
    )


def test_text() -> None:
    fits = before(cluster(daemonsets=(), mutating=frozenset(), cilium={"bpf-lb-sock": "true"}))
    _same("before.txt", view.text(fits) + "\n")
    _same("after.txt", view.text(after(cluster())) + "\n")
    _same("broken.txt", view.text(_broken()) + "\n")


def test_json() -> None:
    _same("broken.json", json.dumps(view.as_json(_broken()), indent=2) + "\n")


def test_every_line_has_its_place_in_the_documentation() -> None:
    page = (_HERE.parents[2] / "docs/check.md").read_text()
    source = "".join(path.read_text() for path in (_HERE.parents[2] / "agent/check").glob("*.py"))
    lines = (
        *before(cluster(cilium={})),
        *after(cluster()),
        *_broken(),
        *before(cluster(namespaces=(Namespace("jobs", {"headgate.io/inject": "enabled"}),))),
    )
    for identity in {line.id for line in lines}:
        assert f'| <a id="{identity}"></a>{identity} |' in page, identity
    for row in page.splitlines():
        if row.startswith('| <a id="'):
            identity = row.split('"')[1]
            assert f'"{identity}"' in source or identity in ("headgate-agent", "headgate-proxy"), identity


def test_names_that_others_chose_do_no_harm() -> None:
    found = cluster(
        namespaces=(Namespace("shop\x1b[2J", {"headgate.io/mesh": "enabled", "istio-injection": "enabled"}),)
    )
    shown = view.text(after(found))
    assert "\x1b" not in shown
    assert r"\x1b[2J" in shown


def test_warnings_alone_are_a_success() -> None:
    lines = [Line("a", "b", Level.WARNING, "c", "d", "e")]
    assert view.summary(lines) == "Status check results are √ (1 checks, 0 failed, 1 warnings)"
    assert view.as_json(lines)["success"] is True
