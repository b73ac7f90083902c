"""`kill -9` of the agent under load: no request is lost, and the next agent changes nothing of what is there (B51)."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from agent.lab.node import Lab
from tests.netns.faults.conftest import Record, nothing_failed
from tests.netns.faults.traffic import Traffic
from tests.netns.life import kernel

_COUNTER = re.compile(r"counter packets (\d+) bytes (\d+)")


class _Changes:
    """Every change of nftables and of routing that the kernel tells of in the lab's pods, from `with` on."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        self._files: list[Path] = []
        self._open = ExitStack()

    def __enter__(self) -> _Changes:
        commands = {"nft": ["nft", "monitor"], "rule": ["ip", "monitor", "rule"], "route": ["ip", "monitor", "route"]}
        for pod in self._lab.pods:
            for name, command in commands.items():
                file = self._directory / f"{pod.name}.{name}"
                process = pod.popen(command, stdout=self._open.enter_context(file.open("wb")))
                self._open.callback(process.wait)
                self._open.callback(process.kill)
                self._files.append(file)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def told(self) -> dict[str, str]:
        return {file.name: text for file in self._files if (text := file.read_text().strip())}


def _heard(lab: Lab, changes: _Changes) -> None:
    """A change of somebody else's is told by all three: their silence is a fact afterwards."""
    for pod in lab.pods:
        pod.run(["nft", "add", "table", "inet", "bystander"])
        pod.run(["ip", "rule", "add", "preference", "40000", "from", "198.51.100.1", "lookup", "main"])
        pod.run(["ip", "route", "add", "198.51.100.0/24", "dev", "lo"])
    lab.wait("the monitors", lambda: len(changes.told()) == 3 * len(lab.pods))


def _holds(lab: Lab) -> tuple[dict[str, str], dict[str, list[int]]]:
    """What each pod's namespace holds, with handles, and its counters."""
    texts = {pod.name: kernel.rules_and_counters(pod.netns) for pod in lab.pods}
    counters = {name: [int(n) for pair in _COUNTER.findall(text) for n in pair] for name, text in texts.items()}
    rest = {pod.name: _COUNTER.sub("counter", texts[pod.name]) + kernel.routing(pod.netns) for pod in lab.pods}
    return rest, counters


def test_b51_agent_killed_and_started_again_under_load_loses_nothing_and_changes_nothing(
    lab: Lab, tmp_path: Path, loss: Record
) -> None:
    with Traffic(lab) as traffic:
        before, counted = _holds(lab)
        with _Changes(lab, tmp_path) as changes:
            for _ in range(3):
                traffic.kill_named("agent")
                traffic.goes_on()
                lab.start_agent(cleanup_on_exit=False)
                lab.wait_proved()
                traffic.goes_on()
            after, counted_after = _holds(lab)
            quiet = changes.told()
            _heard(lab, changes)
        verdict = traffic.end()
    loss("agent-1-killed", verdict, note="3 kills; no rule, handle, set, routing rule or route changed")
    nothing_failed(verdict, traffic)
    assert verdict.cut == 0, "nothing of a connection is in the agent"
    assert quiet == {}
    assert after == before
    assert {name: len(numbers) for name, numbers in counted.items()} == {n: len(c) for n, c in counted_after.items()}
    for name, numbers in counted.items():
        assert all(now >= then for now, then in zip(counted_after[name], numbers, strict=True)), name


def test_agent_terminated_under_load_leaves_its_rules_and_the_next_one_takes_them_up(lab: Lab, loss: Record) -> None:
    with Traffic(lab) as traffic:
        before, _ = _holds(lab)
        assert lab.stop_agent() == 0
        traffic.goes_on()
        lab.start_agent(cleanup_on_exit=False)
        lab.wait_proved()
        traffic.goes_on()
        after, _ = _holds(lab)
        verdict = traffic.end()
    loss("agent-2-restarted", verdict)
    nothing_failed(verdict, traffic)
    assert (verdict.cut, after) == (0, before)
