"""Tests that are in a rule and that nft does not list: explained all the same, as the kernel's own trace shows."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.kernel import nft
from tests.netns.kernel.scratch import NODE4, NODE6, Scratch, pod_and_node

_RULES = """table inet user {
    chain out {
        type filter hook output priority 10; policy accept;
        meta nfproto ipv6 tcp dport 80 reject with tcp reset
        ct l3proto ipv6 tcp dport 81 drop
        ct protocol udp th dport 82 drop
        ct protocol != tcp th dport 83 drop
    }
}
"""


@pytest.fixture(scope="module")
def pod() -> Iterator[Scratch]:
    with pod_and_node() as (pod, _):
        pod.run(nft.apply, _RULES)
        yield pod


def _explained(pod: Scratch, *words: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["rules", "explain", "--netns", pod.path, "-o", "json", *words])
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_nft_lists_the_rules_without_them(pod: Scratch) -> None:
    """Should it learn to, agent.ruleset.nft_unlisted adds nothing and may go."""
    listed = pod.run(nft.list_chain, "inet", "user", "out") or ""
    assert "tcp dport 80 reject" in listed and "nfproto" not in listed
    assert "l3proto" not in listed and "ct protocol udp" not in listed


@pytest.mark.parametrize(
    ("to", "port", "proto", "verdict"),
    [
        (NODE4, 80, "tcp", "accept"),
        (NODE6, 80, "tcp", "reject"),
        (NODE4, 81, "tcp", "accept"),
        (NODE6, 81, "tcp", "drop"),
        (NODE4, 82, "tcp", "accept"),
        (NODE4, 82, "udp", "drop"),
        (NODE6, 83, "tcp", "accept"),
        (NODE6, 83, "udp", "drop"),
    ],
)
def test_they_are_explained_and_the_kernel_agrees(pod: Scratch, to: str, port: int, proto: str, verdict: str) -> None:
    end = f"[{to}]:{port}" if ":" in to else f"{to}:{port}"
    said = _explained(pod, "--to", end, "--proto", proto, "--live")
    assert said["outcome"]["verdict"] == verdict and said["live"]["agrees"]
    decided = [step["place"] for step in said["path"] if step["result"] == "decides"]
    assert decided == ([port - 79] if verdict != "accept" else [])


def test_behind_a_change_of_the_packet_nobody_says_what_the_rule_does(pod: Scratch) -> None:
    rule = "meta mark set 5 ct protocol udp th dport 84 drop"
    pod.run(nft.apply, f"table inet other {{ chain out {{ type filter hook output priority 20; {rule}; }}; }}\n")
    said = _explained(pod, "--to", f"{NODE4}:84", "--proto", "udp")
    assert said["outcome"]["verdict"] == "unknown"
    assert any("ct protocol 17" in one["what"] for one in said["unknown"])
