"""`headgate why` against doubles of the admin sockets: usage, exit status, and what is asked of whom."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from agent.kernel.held import Found
from agent.plan import PlanSettings
from agent.supervisor.reports import PodFacts
from agent.supervisor.standing import Standing, agent_view, why_view
from agent.supervisor.views import pod_view
from agent.why.facts import SourceKind
from tests.unit.agent.lives import enrolled
from tests.unit.agent.test_cli import agent

LIFE = enrolled().life
STANDING = Standing(SourceKind.FILE, "/pods.yaml", (), True, "nft", None)
VIEW = pod_view(LIFE)
AGENT = agent_view(STANDING, [LIFE])
WHY = {
    "agent": AGENT,
    "listed_at": "/run/netns/web",
    "left_out": None,
    "pod": why_view(LIFE, PodFacts(), PlanSettings(), Found((), ()), None),
}
ANSWERS: dict[str, tuple[int, Any]] = {
    "GET /pods": (200, {"proxy_connected": True, "problems": [], "pods": [VIEW]}),
    "GET /why/default/web": (200, WHY),
    "POST /pods/default/web/verify": (200, VIEW),
}


def why(tmp_path: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["why", *words, "--run-dir", str(tmp_path)])


@contextmanager
def answering(tmp_path: Path, **changes: tuple[int, Any]) -> Iterator[list[str]]:
    with agent(tmp_path, {**ANSWERS, **changes}) as asked:
        yield asked


def test_without_pod_and_namespace_it_is_wrong_usage(tmp_path: Path) -> None:
    done = why(tmp_path)
    assert done.exit_code == 2 and "give POD, or --netns PATH, or both" in done.stderr


def test_bare_name_of_several_pods_is_wrong_usage(tmp_path: Path) -> None:
    pods = {"pods": [VIEW, {**VIEW, "namespace": "shop"}]}
    with answering(tmp_path, **{"GET /pods": (200, pods)}):
        done = why(tmp_path, "web")
    assert done.exit_code == 2 and "web is in several namespaces (default, shop)" in done.stderr


@pytest.mark.parametrize("name", ["web", "default/web", "web.default"])
def test_pod_is_found_by_each_form_of_its_name_and_its_proofs_are_taken_anew(tmp_path: Path, name: str) -> None:
    with answering(tmp_path) as asked:
        told = json.loads(why(tmp_path, name, "-o", "json").stdout)
    assert told["pod"] == "default/web"
    assert asked == ["GET /pods", "GET /why/default/web", "POST /pods/default/web/verify"]
    steps = {step["step"]: step for step in told["steps"]}
    assert steps["proofs"]["found"] == "out4 ok, out6 ok, in4 ok, in6 ok"
    assert steps["netns"]["result"] == "unknown", "there is no /run/netns/web here, and the agent says there is"


def test_proofs_that_the_agent_refuses_are_unknown_with_its_words(tmp_path: Path) -> None:
    refused = (409, {"error": "pod default/web is drifted, not installed: x"})
    with answering(tmp_path, **{"POST /pods/default/web/verify": refused}):
        told = json.loads(why(tmp_path, "web", "-o", "json").stdout)
    proofs = next(step for step in told["steps"] if step["step"] == "proofs")
    assert (proofs["result"], proofs["found"]) == ("unknown", "pod default/web is drifted, not installed: x")


def test_unknown_pod_fails_and_says_who_is_known(tmp_path: Path) -> None:
    stranger = {"agent": AGENT, "listed_at": None, "left_out": None, "pod": None}
    with answering(tmp_path, **{"GET /why/default/wob": (200, stranger)}):
        done = why(tmp_path, "wob")
    assert done.exit_code == 1
    assert (
        "FAILED pod         not selected: no pod default/wob in pods file /pods.yaml; did you mean default/web?"
        in done.stdout
    )


def test_agent_of_another_version_is_said(tmp_path: Path) -> None:
    with answering(tmp_path, **{"GET /why/default/web": (404, {"error": "not found"})}):
        done = why(tmp_path, "web")
    assert done.exit_code == 1
    assert "answers what cannot be understood: status 404 for /why" in done.stdout


def test_agent_whose_answer_makes_no_sense_is_said(tmp_path: Path) -> None:
    answers: tuple[Any, ...] = ([], {"pods": 5}, {"pods": [{}]}, "x")
    for answer in answers:
        with answering(tmp_path, **{"GET /pods": (200, answer)}):
            done = why(tmp_path, "web")
        assert done.exit_code == 1 and "cannot be understood" in done.stdout, answer
        (tmp_path / "admin.sock").unlink()


def test_hostile_name_is_asked_for_as_one_path_and_told_escaped(tmp_path: Path) -> None:
    with answering(tmp_path) as asked:
        done = why(tmp_path, "default/a?b\x1b[2J")
    assert asked[1] == "GET /why/default/a%3Fb%1B%5B2J"
    assert "\x1b" not in done.stdout


def test_yaml(tmp_path: Path) -> None:
    with answering(tmp_path):
        done = why(tmp_path, "web", "-o", "yaml")
    assert done.stdout.startswith("pod: default/web\nok: true\nfailed: null\n")


def test_without_agent_a_namespace_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = why(tmp_path, "--netns", str(tmp_path / "x"))
    assert done.exit_code == 1
    assert done.stdout.startswith(f"FAILED agent       no agent at {tmp_path}/admin.sock\n")
    assert f"FAILED netns       {tmp_path}/x is not there" in done.stdout
