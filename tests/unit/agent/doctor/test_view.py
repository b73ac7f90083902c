"""How findings are told: hostile names never reach the terminal, what is alike is told once."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.doctor import view
from agent.doctor.findings import Finding, Severity, Unseen

HOSTILE = Finding("net-raw", Severity.SERIOUS, "netns /tmp/\x1b[2J", "pid 1 (\x1b]0;owned\x07)", "w\ny", "r\u202eu")


def test_no_terminal_escape_passes() -> None:
    unseen = [Unseen("rules", "pod \x1b[31m", "\x9bno")]
    (line,) = view.unseen_lines(unseen)
    texts = [view.wide([HOSTILE]), line, json.dumps(view.as_json([HOSTILE], unseen, 1), ensure_ascii=False)]
    for text in texts:
        assert all(part.isprintable() for part in text.split("\n")), text
    assert r"\x1b[2J" in view.rows([HOSTILE])[0][2]


def test_what_is_alike_in_many_pods_is_one_line() -> None:
    many = [Finding("conntrack", Severity.WARNING, f"pod a/{number}", "full", "why", "do") for number in range(5)]
    assert view.rows(many) == [("WARNING", "conntrack", "pod a/0, pod a/1, pod a/2 and 2 more", "full")]
    assert view.wide(many).count("remedy") == 1
    assert len(view.as_json(many, [], 5)["findings"]) == 5
    lines = view.unseen_lines(Unseen("rules", f"pod a/{number}", "gone") for number in range(5))
    assert lines == ["not looked at: rules of pod a/0, pod a/1, pod a/2 and 2 more: gone"]


def test_the_summary_counts_by_severity() -> None:
    assert view.summary([HOSTILE], 3, 0.456) == "1 serious, 0 warning, 0 info; 3 pods, 0.46 s"


def test_an_unknown_id_is_wrong_usage(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", "--only", "nonsense", "--run-dir", str(tmp_path)])
    assert done.exit_code == 2 and "nonsense" in done.output


def test_the_ids_are_listed() -> None:
    done = CliRunner().invoke(main, ["doctor", "--list"])
    assert done.exit_code == 0 and "socket-lb" in done.stdout and "no-timeout" in done.stdout


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_node_without_agent_says_what_it_did_not_look_at(tmp_path: Path, output: str) -> None:
    done = CliRunner().invoke(
        main, ["doctor", "--run-dir", str(tmp_path), "--cni-dir", str(tmp_path / "none"), "-o", output]
    )
    assert "no agent at" in done.stdout and "No such file or directory" in done.stdout
