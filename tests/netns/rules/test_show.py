"""`headgate rules show` and `plan`: everything that the kernel holds, told apart; word for word as people read it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.kernel.backends import Backend
from agent.plan import Steering, plan_of
from tests.netns.rules.here import MODES, NFT, quiet_pod

GOLDEN = Path(__file__).parent / "golden"


def same_as_golden(name: str, text: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("REFRESH_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


def test_ours_and_others_of_every_tool_as_people_read_them() -> None:
    with quiet_pod() as here:
        here.foreign()
        here.install(NFT, MODES["mark"])
        done = here.headgate("show")
    assert done.exit_code == 0 and done.stderr == ""
    same_as_golden("show.txt", done.stdout)


@pytest.mark.parametrize("identity", MODES)
@pytest.mark.parametrize("backend", Backend)
def test_each_rule_of_the_plan_is_found_with_its_meaning_in_every_backend(backend: Backend, identity: str) -> None:
    plan = plan_of(Steering(), MODES[identity])
    with quiet_pod() as here:
        here.install(backend, MODES[identity])
        shown = here.said("show")
    rules = [rule for table in shown["tables"] for chain in table["chains"] for rule in chain["rules"]]
    found = {rule["id"]: rule["meaning"] for rule in rules if not rule["id"].startswith("entry")}
    assert {rule["whose"] for rule in rules} == {"headgate"}
    wanted = {rule.rule_id: rule.meaning for rule in plan.all_rules}
    # iptables has one rule for each connection that is older, so here none.
    assert found.items() == {i: m for i, m in wanted.items() if i in found}.items()
    assert {i for i in wanted if i not in found and "grandfathered" not in i} == set()


def test_a_plan_as_people_read_it() -> None:
    lines = [re.split(r"  +", line) for line in _plan("--identity", "mark").splitlines()]
    assert lines[0] == ["CHAIN", "RULE", "MEANING"]
    assert ["nat-output", "out-capture", "every other new TCP connection of the pod meets the proxy"] in lines
    assert lines[-2:] == [
        ["ip rule 32764: fwmark 0x111/0xfff lookup 100"],
        ["ip route: local default dev lo table 100"],
    ]
    wide = _plan("-o", "wide", "--exclude-outbound-ports", "5432,3000-3005")
    (excluded,) = [line for line in wide.splitlines() if "out-capture-skip-ports" in line]
    assert "dport { 3000-3005, 5432 } accept" in excluded and wide.endswith("\naddress ::6/128 on lo\n")


def test_a_plan_for_programs_has_both_backends_words() -> None:
    (capture,) = [rule for rule in json.loads(_plan("-o", "json"))["rules"] if rule["id"] == "out-capture"]
    assert capture["nft"]["chain"] == "nat-output" and "REDIRECT" in capture["iptables"]["rules"]["ipv4"][0]
    assert "out-capture" in _plan("-o", "yaml")


def _plan(*words: str) -> str:
    done = CliRunner().invoke(main, ["rules", "plan", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_a_plan_as_a_script_is_taken_by_its_tool(form: str) -> None:
    script = _plan("-o", form)
    with quiet_pod() as here:
        if form == "nft":
            here.nft(script)
        else:
            for tool in ("iptables-nft", "ip6tables-nft"):
                half = script.partition("# ip6tables")
                here.restore(tool, half[0] if tool == "iptables-nft" else "#" + half[2])
        assert here.headgate("show").stdout.count("out-capture: ") >= 1


def test_for_programs_whose_and_what_for_is_said_of_each_rule() -> None:
    with quiet_pod() as here:
        here.foreign()
        here.install(NFT)
        shown = here.said("show")
    whose = {(table["tool"], table["family"], table["name"]): table["whose"] for table in shown["tables"]}
    assert whose["nft", "inet", "headgate"] == whose["nft", "inet", "headgate-anchor"] == "headgate"
    assert whose["nft", "inet", "docker-bridges"] == "docker"
    assert whose["nft", "inet", "headgate-users-own"] == "unknown"
    rules = [rule for table in shown["tables"] for chain in table["chains"] for rule in chain["rules"]]
    ours = [rule for rule in rules if rule["whose"] == "headgate"]
    assert len(ours) > 20 and all(rule["id"] and rule["meaning"] and rule["packets"] == 0 for rule in ours)
    assert {"istio", "docker", "unknown"} == {rule["whose"] for rule in rules} - {"headgate"}
    assert shown["loopback_addresses"] == ["::6"] and shown["unread"] == []


def test_nothing_is_said_to_be_nothing() -> None:
    with quiet_pod() as here:
        done = here.headgate("show")
    assert (done.exit_code, done.stdout) == (0, "") and "no rules in network namespace" in done.stderr


def test_a_comment_with_a_line_break_makes_no_rule_and_reaches_no_terminal() -> None:
    comment = 'a\n\t\tcounter packets 9 bytes 9 redirect to :1 comment "headgate:out-capture" \x1b[2J'
    with quiet_pod() as here:
        here.restore("iptables-nft", '*nat\n-A OUTPUT -m comment --comment "x \x1b[2J" -j ACCEPT\nCOMMIT\n')
        here.pod.shell(
            "iptables-nft", "-t", "nat", "-A", "OUTPUT", "-m", "comment", "--comment", comment, "-j", "ACCEPT"
        )
        done = here.headgate("show")
        shown = here.said("show")
    assert "\x1b" not in done.stdout and "out-capture:" not in done.stdout
    (table,) = shown["tables"]
    assert [rule["whose"] for chain in table["chains"] for rule in chain["rules"]] == ["unknown", "unknown"]


def test_what_cannot_be_entered_is_said() -> None:
    missing = CliRunner().invoke(main, ["rules", "show", "--netns", "/run/netns/hg-no-such"])
    assert missing.exit_code == 1 and "/run/netns/hg-no-such: No such file" in missing.stderr
    other = CliRunner().invoke(main, ["rules", "show", "--netns", "/proc/self/ns/mnt"])
    assert other.exit_code == 1 and "another kind" in other.stderr


def test_who_reads_only_the_first_lines_sees_no_error() -> None:
    with quiet_pod() as here:
        here.install(NFT)
        show = f"{sys.executable} -m agent rules show --netns {here.pod.path}"
        done = subprocess.run(
            ["sh", "-c", f"{show} | head -1"], capture_output=True, text=True, timeout=30, check=False
        )
    assert done.stdout.startswith("nft table inet headgate") and done.stderr == ""
