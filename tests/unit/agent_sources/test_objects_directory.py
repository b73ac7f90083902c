"""The agent's directory of objects: what is new, what is gone, and what stays when a file cannot be read."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from agent.sources import objects
from agent.sources.objects import SETTLE_S, Changes, ObjectsDirectory
from proxy.api import stream
from proxy.api.stream import ObjectName


def pod(name: str, label: str = "a") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {label}}}}}\n"


def named(name: str) -> ObjectName:
    return ObjectName("", "Pod", "default", name)


def put(path: Path, text: str) -> None:
    """As an operator's tool does it: in one step."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def labels(changes: Changes | None) -> dict[str, str | None]:
    assert changes is not None

    def label(line: bytes) -> str:
        message = stream.decode(line)
        assert isinstance(message, stream.ObjectSeen)
        metadata: Any = message.body["metadata"]
        return str(metadata["labels"]["app"])

    return {name.name: None if line is None else label(line) for name, line in changes.items()}


def test_everything_first_and_then_only_what_changes(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", pod("a") + "---\n" + pod("b"))
    directory = ObjectsDirectory(tmp_path)
    assert labels(directory.look()) == {"a": "a", "b": "a"}
    assert directory.look() is None
    put(tmp_path / "a.yaml", pod("a") + "---\n" + pod("b", "new"))
    put(tmp_path / "c.yml", pod("c"))
    assert labels(directory.look()) == {"b": "new", "c": "a"}
    (tmp_path / "a.yaml").unlink()
    assert labels(directory.look()) == {"a": None, "b": None}


def test_an_empty_directory_is_an_answer_and_one_that_is_not_there_is_none(tmp_path: Path) -> None:
    directory = ObjectsDirectory(tmp_path / "objects")
    assert directory.look() is None
    assert "cannot be listed" in directory.problems[0]
    (tmp_path / "objects").mkdir()
    assert directory.look() == {}
    assert directory.problems == ()
    assert directory.look() is None


def test_a_directory_that_goes_away_takes_nothing_with_it(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    put(tmp_path / "objects" / "a.yaml", pod("a"))
    directory = ObjectsDirectory(tmp_path / "objects")
    directory.look()
    (tmp_path / "objects").rename(tmp_path / "away")
    assert directory.look() is None
    assert "its objects stay" in directory.problems[0]
    (tmp_path / "away").rename(tmp_path / "objects")
    assert directory.look() is None
    assert directory.problems == ()


@pytest.mark.parametrize("broken", ["a: [", "kind: Pod", "\udcff"])
def test_a_file_that_breaks_keeps_its_last_good_objects_and_is_named(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "a.yaml", pod("a"))
    directory = ObjectsDirectory(tmp_path)
    directory.look()
    (tmp_path / "new").write_bytes(broken.encode("utf-8", "surrogateescape"))
    (tmp_path / "new").replace(tmp_path / "a.yaml")
    assert labels(directory.look()) == {}
    (problem,) = directory.problems
    assert problem.startswith("a.yaml: ") and "last good 1 objects stay" in problem
    assert problem in caplog.text
    put(tmp_path / "a.yaml", pod("a", "good"))
    assert labels(directory.look()) == {"a": "good"}
    assert directory.problems == ()


def test_a_file_written_in_place_is_taken_when_it_is_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    put(path, pod("a"))
    directory = ObjectsDirectory(tmp_path)
    directory.look()
    path.write_text("")  # truncated, and not yet written
    written_s = time.time()
    monkeypatch.setattr(objects.time, "time", lambda: written_s)
    assert directory.look() is None
    path.write_text(pod("a", "new"))
    written_s = time.time() + 2 * SETTLE_S
    assert labels(directory.look()) == {"a": "new"}


def test_the_first_file_by_name_counts_and_the_second_takes_over(tmp_path: Path) -> None:
    put(tmp_path / "b.yaml", pod("a", "second"))
    put(tmp_path / "a.yaml", pod("a", "first"))
    directory = ObjectsDirectory(tmp_path)
    assert labels(directory.look()) == {"a": "first"}
    (tmp_path / "a.yaml").unlink()
    assert labels(directory.look()) == {"a": "second"}


def test_other_files_are_none_of_ours(tmp_path: Path) -> None:
    put(tmp_path / "a.txt", pod("a"))
    put(tmp_path / ".hidden.yaml", pod("b"))
    (tmp_path / "directory.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    assert ObjectsDirectory(tmp_path).look() == {}


def test_a_file_or_an_object_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_OBJECT_LINE_BYTES", 1000)
    monkeypatch.setattr(objects, "MAX_FILE_BYTES", 3000)
    put(tmp_path / "a.yaml", pod("a") + f"x: {'y' * 1000}\n")
    put(tmp_path / "b.yaml", "#" * 3001)
    put(tmp_path / "c.yaml", pod("c"))
    directory = ObjectsDirectory(tmp_path)
    assert labels(directory.look()) == {"c": "a"}
    assert "larger than any object" in directory.problems[0]
    assert "3001 bytes" in directory.problems[1]


def test_changes_waits_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LOOK_EVERY_S", 0.01)

    async def scenario() -> None:
        directory = ObjectsDirectory(tmp_path)
        async with asyncio.timeout(5):
            assert await directory.changes() == {}
            waiting = asyncio.create_task(directory.changes())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            put(tmp_path / "a.yaml", pod("a"))
            assert set(await waiting) == {named("a")}

    asyncio.run(scenario())


def test_lines_are_json_of_one_line(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", pod("a") + 'spec: "two\\nlines \\u2028"\n')
    changes = ObjectsDirectory(tmp_path).look()
    assert changes is not None
    (line,) = changes.values()
    assert line is not None and line.count(b"\n") == 1
    assert json.loads(line)["object"]["spec"].startswith("two\nlines")
