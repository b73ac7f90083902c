"""`headgate why` as a person asks it, and what it said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from agent.cli import main
from agent.lab import objects
from agent.lab.node import Lab


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, as JSON."""

    status: int
    body: dict[str, Any]

    def step(self, name: str) -> dict[str, Any]:
        (found,) = [step for step in self.body["steps"] if step["step"] == name]
        return dict(found)

    def fails_at(self, name: str, *found: str) -> dict[str, Any]:
        """That step, which is the first to fail, with all of `found` in what was found."""
        assert (self.status, self.body["ok"], self.body["failed"]) == (1, False, name), self.body
        step = self.step(name)
        for text in found:
            assert text in step["found"], step
        assert step["why"] and step["remedy"], step
        return step

    def also_fails(self, name: str, *found: str) -> dict[str, Any]:
        step = self.step(name)
        assert step["result"] == "failed", step
        for text in found:
            assert text in step["found"], step
        return step


def why(lab: Lab, *words: str, run_dir: Path | None = None) -> Said:
    done = CliRunner().invoke(main, ["why", *words, "--run-dir", str(run_dir or lab.paths.run), "-o", "json"])
    assert done.exit_code in (0, 1), done.output
    return Said(done.exit_code, json.loads(done.stdout))


def add_pods(lab: Lab, *entries: dict[str, Any]) -> None:
    """To the agent's pods file, in one step."""
    listed = yaml.safe_load(lab.pods_file.read_text())
    listed["pods"] += entries
    objects.write_atomically(lab.pods_file, yaml.safe_dump(listed))


@contextmanager
def rules_of_others(lab: Lab, pod: str, script: str, table: str) -> Iterator[None]:
    """What somebody else put into the pod; taken away again."""
    netns = lab.pod(pod).netns
    netns.run(["nft", "-f", "-"], stdin=script)
    try:
        yield
    finally:
        netns.run(["nft", "delete", "table", *table.split()])
