"""The verbs with a POD: by the agent of a running lab."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from agent.lab.node import Lab

POD = "default/web-v1"


def rules(lab: Lab, *words: str) -> Result:
    return CliRunner().invoke(main, ["rules", *words, "--run-dir", str(lab.paths.run)])


def said(lab: Lab, *words: str) -> Any:
    done = rules(lab, *words, "-o", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_show_has_the_plans_rules_and_what_others_hold(web_lab: Lab) -> None:
    netns = web_lab.pod("web-v1").netns
    netns.run(["iptables-nft", "-t", "nat", "-N", "ISTIO_OUTPUT"])
    netns.run(["iptables-nft", "-t", "nat", "-A", "OUTPUT", "-j", "ISTIO_OUTPUT"])
    try:
        done = rules(web_lab, "show", POD)
        shown = said(web_lab, "show", POD)
    finally:
        netns.run(["iptables-nft", "-t", "nat", "-F"])
        netns.run(["nft", "delete", "table", "ip", "nat"])
    assert done.exit_code == 0 and "missing" not in done.stdout
    assert "iptables-nft table ip nat (istio)" in done.stdout and "-j ISTIO_OUTPUT" in done.stdout
    assert [table["whose"] for table in shown["others"]["tables"]] == ["unknown"]
    assert shown["others"]["ip_rules"] == shown["others"]["ip_routes"] == []


def test_plan_is_what_the_pod_asks_for(web_lab: Lab) -> None:
    plan = said(web_lab, "plan", POD)
    assert plan["error"] == "" and "out-capture" in {rule["id"] for rule in plan["rules"]}
    assert "out-capture" in rules(web_lab, "plan", POD).stdout


def test_a_packet_of_the_pod_is_explained_in_the_namespace_that_the_agent_knows(web_lab: Lab) -> None:
    explained = said(web_lab, "explain", POD, "--to", "192.0.2.2:80", "--uid", "1000")
    assert (explained["outcome"]["verdict"], explained["outcome"]["port"]) == ("redirect", 15001)
    assert "the outbound listener of the mesh" in explained["outcome"]["meaning"]
    assert "listens there" in explained["outcome"]["meaning"] and "nobody" not in explained["outcome"]["meaning"]
    nobody = rules(web_lab, "explain", "default/nobody", "--to", "192.0.2.2:80")
    assert nobody.exit_code == 1 and "nobody" in nobody.stderr


def test_diff_names_what_differs_and_the_agent_puts_it_right_when_asked(web_lab: Lab) -> None:
    assert rules(web_lab, "diff", POD).exit_code == 0
    web_lab.pod("web-v1").netns.run(["nft", "flush", "chain", "inet", "headgate", "nat-output"])
    fixed = rules(web_lab, "diff", POD, "--fix")  # the agent may have been quicker: it heals by itself
    assert fixed.exit_code == 0, fixed.output
    assert fixed.stdout == "" or fixed.stdout.startswith("was: ")
    assert rules(web_lab, "diff", POD).exit_code == 0


def test_the_agents_proofs_hold(web_lab: Lab) -> None:
    assert rules(web_lab, "verify", POD).exit_code == 0


def test_the_matrix_holds_in_a_pod_that_a_real_proxy_serves(web_lab: Lab) -> None:
    netns = str(web_lab.pod("web-v1").netns.path)
    done = CliRunner().invoke(main, ["rules", "verify", "--netns", netns, "--identity", "mark", "-o", "json"])
    report = json.loads(done.stdout)
    assert done.exit_code == 0, [cell for cell in report["cells"] if cell["result"] != "ok"]
    assert {cell["result"] for cell in report["cells"]} == {"ok"}
    assert {cell["reason"] for cell in report["cells"] if cell["seen"].startswith("to ")} == {"conntrack"}


def test_clean_is_refused_where_the_agent_serves(web_lab: Lab) -> None:
    netns = str(web_lab.pod("web-v1").netns.path)
    done = rules(web_lab, "clean", "--netns", netns)
    assert done.exit_code == 1 and "pod default/web-v1, which the agent serves" in done.stderr
    assert rules(web_lab, "diff", POD).exit_code == 0


@pytest.mark.parametrize("verb", ["show", "plan", "diff", "verify"])
def test_a_pod_that_is_not_there_is_said(web_lab: Lab, verb: str) -> None:
    done = rules(web_lab, verb, "default/nobody")
    assert done.exit_code == 1 and "no pod default/nobody on this node" in done.stderr
