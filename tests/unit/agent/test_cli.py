"""The agent's verbs, against a double of its admin socket: what is printed, and how they end."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from agent.cli.client import PodName, table
from agent.events import Events, EventType, Reason, event_list
from agent.plan import PlanSettings, build_plan
from agent.pods.probe_path import PathStatus, ProbePath
from agent.supervisor.reports import PodFacts, ProbeFacts
from agent.supervisor.unsteered import Unsteered
from agent.supervisor.views import plan_view, pod_view, rules_view
from tests.unit.agent.lives import SEEN, UNPROVED, enrolled

LIFE = enrolled().life
FLOW = (ip_address("10.0.0.5"), 40000, ip_address("10.0.0.9"), 80)
FLOW6 = (ip_address("fd00::5"), 40000, ip_address("fd00::9"), 80)
PROVED_POD = pod_view(LIFE, PodFacts(Unsteered(frozenset({FLOW, FLOW6}))))
UNPROVED_POD = pod_view(enrolled().hears(UNPROVED).life)
RULES = rules_view(LIFE, build_plan(LIFE.pod, PlanSettings()), ())


class _Server(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(str(self.server_address))


@contextmanager
def agent(tmp_path: Path, answers: dict[str, tuple[int, Any]]) -> Iterator[list[str]]:
    """Answers `METHOD PATH` with (status, JSON); everything else with 404. Yields what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            status, body = answers.get(asked[-1], (404, {"error": "no pod x/y on this node: see `headgate pods`"}))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

        def address_string(self) -> str:
            return "unix"

    server = _Server(str(tmp_path / "admin.sock"), Handler)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def headgate(tmp_path: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--run-dir", str(tmp_path)])


PODS = {"proxy_connected": True, "problems": [], "pods": [PROVED_POD]}


def test_pods(tmp_path: Path) -> None:
    with agent(tmp_path, {"GET /pods": (200, PODS)}):
        result = headgate(tmp_path, "pods")
    assert result.exit_code == 0
    assert result.stdout == (
        "NAMESPACE  NAME  STATE   OUT4  OUT6  IN4  IN6  ADDRESSES  REASON\n"
        "default    web   proved  ok    ok    ok   ok   10.0.0.5\n"
    )


def test_pods_show_what_is_wrong(tmp_path: Path) -> None:
    wrong = {"proxy_connected": False, "problems": ["pods.yaml: pod 2: netns: missing"], "pods": [UNPROVED_POD]}
    with agent(tmp_path, {"GET /pods": (200, wrong)}):
        result = headgate(tmp_path, "pods")
    assert "FAILED" in result.stdout and "in4: no report" in result.stdout
    assert "no proxy is connected" in result.stderr and "pods.yaml: pod 2" in result.stderr


def test_pods_wide_also_show_what_lives_outside_the_mesh_and_what_drifted(tmp_path: Path) -> None:
    facts = PodFacts(Unsteered(frozenset({FLOW, FLOW6}), frozenset()), ("table ip nat: chain x",), drifts=3)
    with agent(tmp_path, {"GET /pods": (200, {**PODS, "pods": [pod_view(LIFE, facts)]})}):
        result = headgate(tmp_path, "pods", "-o", "wide")
    head, row = (line.split() for line in result.stdout.splitlines())
    shown = dict(zip(head, row, strict=False))
    assert (shown["UNSTEERED"], shown["DRIFTS"], shown["FOREIGN"]) == ("2+0+0", "3", "1")
    assert shown["NETNS"] == "/run/netns/web"


def test_pods_wide_show_how_probes_arrive_where_the_agent_has_to_do_with_them(tmp_path: Path) -> None:
    shut = ProbePath(ip_address("10.0.0.5"), PathStatus.SHUT, "dropped", "let it in")
    probed = (None, ProbeFacts(listed=False), ProbeFacts(listed=True), ProbeFacts(True, (shut,)))
    pods = [pod_view(LIFE, PodFacts(probes=facts)) for facts in probed]
    with agent(tmp_path, {"GET /pods": (200, {**PODS, "pods": pods})}):
        result = headgate(tmp_path, "pods", "-o", "wide")
    head, *rows = (line.split() for line in result.stdout.splitlines())
    assert [row[head.index("PROBES")] for row in rows] == ["-", "-", "untried", "shut"]


def test_the_nodes_namespace_is_of_a_cluster_s_node(tmp_path: Path) -> None:
    result = headgate(tmp_path, "agent", "--node-netns", "/proc/self/ns/net")
    assert (result.exit_code, "--node-netns needs --kubernetes" in result.stderr) == (2, True)


def _events() -> dict[str, Any]:
    now_s = [time.time() - 150]
    events = Events(lambda: now_s[0])
    events.record(LIFE.pod, EventType.WARNING, Reason.DRIFTED, "table inet headgate is gone, changed by nft (pid 7)")
    now_s[0] += 30
    events.record(LIFE.pod, EventType.WARNING, Reason.DRIFTED, "rule out-capture is \x1b[2Jmissing")
    now_s[0] += 115
    events.record(LIFE.pod, EventType.NORMAL, Reason.HEALED, "in force again")
    return event_list(events.all())


def test_events_are_shown_as_kubectl_shows_them(tmp_path: Path) -> None:
    with agent(tmp_path, {"GET /events": (200, _events())}):
        result = headgate(tmp_path, "events")
    head, drifted, healed = result.stdout.splitlines()
    assert head.split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert re.match(r"(1m5\ds|2m\d?s?) \(x2 over 2m\d+s\) +Warning +RedirectionDrifted +pod/web.default +rule", drifted)
    assert drifted.endswith(r"rule out-capture is \x1b[2Jmissing")
    assert re.match(r"\d+s +Normal +RedirectionHealed +pod/web.default +in force again$", healed)


def test_events_of_one_pod(tmp_path: Path) -> None:
    with agent(tmp_path, {"GET /events/default/web": (200, _events())}) as asked:
        assert headgate(tmp_path, "events", "default/web").exit_code == 0
    assert asked == ["GET /events/default/web"]


def test_events_for_programs_are_a_kubernetes_list(tmp_path: Path) -> None:
    with agent(tmp_path, {"GET /events": (200, _events())}):
        answer = json.loads(headgate(tmp_path, "events", "-o", "json").stdout)
    assert answer["kind"] == "List" and [item["kind"] for item in answer["items"]] == ["Event", "Event"]
    first = answer["items"][0]
    assert (first["count"], first["reason"], first["involvedObject"]["name"]) == (2, "RedirectionDrifted", "web")


def test_no_events_are_said(tmp_path: Path) -> None:
    with agent(tmp_path, {"GET /events": (200, event_list(()))}):
        result = headgate(tmp_path, "events")
    assert result.exit_code == 0 and result.stdout == "" and "no events" in result.stderr


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_pods_for_programs(tmp_path: Path, output: str) -> None:
    import yaml

    with agent(tmp_path, {"GET /pods": (200, PODS)}):
        result = headgate(tmp_path, "pods", "-o", output)
    assert yaml.safe_load(result.stdout) == PODS  # JSON is YAML


def test_rules_show_tells_each_rule_with_its_meaning(tmp_path: Path) -> None:
    answers = {"GET /pods": PODS, "GET /rules/default/web": RULES, "GET /pods/default/web": PROVED_POD}
    with agent(tmp_path, {asked: (200, answer) for asked, answer in answers.items()}) as asked:
        result = headgate(tmp_path, "rules", "show", "web")
    assert result.exit_code == 0 and asked == list(answers)
    assert "others' rules cannot be read from here: network namespace /run/netns/web: No such file" in result.stderr
    assert "table inet headgate\n" in result.stdout
    assert "missing  every other new TCP connection of the pod meets the proxy" in result.stdout
    assert "ip rule 32764: fwmark 0x111/0xfff lookup 100" in result.stdout


@pytest.mark.parametrize("name", ["shop/cart", "cart.shop"])
def test_a_pod_is_named_in_two_ways(tmp_path: Path, name: str) -> None:
    with agent(tmp_path, {}) as asked:
        headgate(tmp_path, "rules", "show", name)
    assert asked == ["GET /rules/shop/cart"]


def test_verify_of_a_proved_pod(tmp_path: Path) -> None:
    with agent(tmp_path, {"POST /pods/default/web/verify": (200, PROVED_POD)}):
        result = headgate(tmp_path, "rules", "verify", "default/web")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["PROOF", "RESULT", "REASON"]


def test_verify_ends_with_1_and_names_the_failed_proof(tmp_path: Path) -> None:
    with agent(tmp_path, {"POST /pods/default/web/verify": (200, UNPROVED_POD)}):
        result = headgate(tmp_path, "rules", "verify", "default/web")
    assert result.exit_code == 1
    assert "default/web is not proved: in4" in result.stderr


def test_a_pod_that_is_not_there_is_the_agents_own_words(tmp_path: Path) -> None:
    with agent(tmp_path, {}):
        result = headgate(tmp_path, "rules", "verify", "x/y")
    assert result.exit_code == 1 and "no pod x/y on this node" in result.stderr


def test_a_bare_name_in_two_namespaces_must_be_told_apart(tmp_path: Path) -> None:
    two = {**PODS, "pods": [PROVED_POD, {**PROVED_POD, "namespace": "shop"}]}
    with agent(tmp_path, {"GET /pods": (200, two)}):
        result = headgate(tmp_path, "rules", "show", "web")
    assert result.exit_code == 2 and "default, shop" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["rules", "show", "a/b/c"],
        ["rules", "show", "/x"],
        ["rules", "show", "web", "--self"],
        ["rules", "show", "--self", "--netns", "/run/netns/x"],
        ["pods", "-o", "x"],
    ],
)
def test_wrong_usage_ends_with_2(tmp_path: Path, words: list[str]) -> None:
    assert headgate(tmp_path, *words).exit_code == 2


def test_no_agent_is_said_with_the_path_and_the_remedy(tmp_path: Path) -> None:
    result = headgate(tmp_path, "pods")
    assert result.exit_code == 1
    assert str(tmp_path / "admin.sock") in result.stderr and "headgate agent" in result.stderr


def test_a_name_of_one_word_is_looked_up() -> None:
    assert PodName().convert("web", None, None) == (None, "web")


def test_a_table_shows_control_characters_instead_of_obeying_them() -> None:
    assert table(("A", "B"), [("x\x1b[2J", "y\n")]) == "A         B\nx\\x1b[2J  y\\n"


ANNOTATIONS = (
    ("headgate.io/exclude-outbound-ports", "5432"),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", "6379"),
)
PLAN = plan_view(
    enrolled(replace(SEEN, pod=replace(SEEN.pod, annotations=ANNOTATIONS))).life,
    PlanSettings(),
)


def test_rules_plan_of_a_pod_shows_who_decided_and_who_was_overruled(tmp_path: Path) -> None:
    with agent(tmp_path, {"GET /plan/default/web": (200, PLAN)}):
        result = headgate(tmp_path, "rules", "plan", "default/web")
    assert result.exit_code == 0
    assert "out-capture-skip-ports" in result.stdout
    (origin,) = [line for line in result.stdout.splitlines() if "headgate.io/exclude-outbound-ports" in line]
    assert "5432" in origin and "traffic.sidecar.istio.io/excludeOutboundPorts: 6379" in origin


def test_rules_plan_of_a_pod_that_asks_for_what_cannot_be_ends_with_1(tmp_path: Path) -> None:
    refused = {**PLAN, "error": "annotation headgate.io/exclude-outbound-ports: 'x' is no port"}
    with agent(tmp_path, {"GET /plan/default/web": (200, refused)}):
        result = headgate(tmp_path, "rules", "plan", "default/web")
        scripted = headgate(tmp_path, "rules", "plan", "default/web", "-o", "nft")
    assert result.exit_code == 1 and "'x' is no port" in result.stderr
    assert scripted.exit_code == 2


def _difference(**more: Any) -> dict[str, Any]:
    return {"pod": "default/web", "changes": [], "foreign": [], "state": "proved", "reason": "", **more}


def test_rules_diff_of_a_pod_is_the_agents(tmp_path: Path) -> None:
    well = _difference(foreign=["table ip nat: chain x"])
    with agent(tmp_path, {"POST /rules/default/web/diff": (200, well)}):
        result = headgate(tmp_path, "rules", "diff", "default/web")
    assert result.exit_code == 0 and result.stdout == ""
    assert "comes before our rules: table ip nat: chain x" in result.stderr and "holds what is planned" in result.stderr


def test_rules_diff_of_a_pod_that_drifted_ends_with_1_and_fixes_when_asked(tmp_path: Path) -> None:
    drifted = _difference(changes=["rule out-capture is missing"])
    answers = {
        "POST /rules/default/web/diff": (200, drifted),
        "POST /rules/default/web/diff?fix=1": (200, {**drifted, "fixed": True, "left": []}),
    }
    with agent(tmp_path, answers):
        differs = headgate(tmp_path, "rules", "diff", "default/web")
        fixed = headgate(tmp_path, "rules", "diff", "default/web", "--fix")
    assert differs.exit_code == 1 and differs.stdout == "rule out-capture is missing\n"
    assert fixed.exit_code == 0 and fixed.stdout == "was: rule out-capture is missing\n"


def test_rules_diff_that_the_agent_cannot_fix_says_what_is_left(tmp_path: Path) -> None:
    left = _difference(changes=["a"], fixed=False, left=["rule \x1b is missing"], state="drifted")
    with agent(tmp_path, {"POST /rules/default/web/diff?fix=1": (200, left)}):
        result = headgate(tmp_path, "rules", "diff", "default/web", "--fix")
    assert result.exit_code == 1 and r"still differs, it is drifted: rule \x1b is missing" in result.stderr


def test_rules_plan_needs_no_agent() -> None:
    result = CliRunner().invoke(main, ["rules", "plan", "-o", "nft"])
    assert result.exit_code == 0 and "redirect to :15006" in result.stdout


def test_help_lists_every_verb_and_imports_none() -> None:
    code = (
        "import sys\nfrom agent.cli import main\n"
        "try: main(['--help'], prog_name='headgate')\nexcept SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith(('agent.', 'proxy'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    for verb in ("agent", "demo", "events", "lab", "pods", "proxy", "rules"):
        assert f"\n  {verb} " in done.stdout
    assert done.stdout.splitlines()[-1] == "['agent.cli']"


def test_proxy_loads_nothing_of_the_agent() -> None:
    code = (
        "import sys\nfrom agent.cli import main\n"
        "try: main(['proxy', '--help'], prog_name='headgate')\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('agent.') and m != 'agent.cli'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "[]"
