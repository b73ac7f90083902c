"""The node's CNI directory while pods start: written anew by others, full, and with two lists in it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from tests.netns.life import kernel
from tests.netns.lifecycle import web
from tests.netns.lifecycle.node import CONFLIST, Node, Started

PODS = 4


def test_another_cni_writes_its_list_anew_while_pods_start_and_all_of_them_are_steered(steered: Node) -> None:
    steered.end_all()
    steered.unchain()
    path = steered.runtime.conf_dir / CONFLIST
    theirs = path.read_bytes()
    steered.bring_up()
    done = threading.Event()
    writer = threading.Thread(target=_write_again_and_again, args=(path, theirs, done))
    begun: list[Started] = []
    starting = [
        threading.Thread(target=lambda name=name: begun.append(steered.run(name, web.sleeper())))
        for name in (f"new-{number}" for number in range(PODS))
    ]
    writer.start()
    try:
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
    finally:
        done.set()
        writer.join()
    steered.wait_proved(*(one.pod.name for one in begun))
    assert len(begun) == PODS
    assert all("headgate" in kernel.rules(steered.netns(one.pod)) for one in begun)
    steered.wait("the plugin to be back", steered.is_chained)


def _write_again_and_again(path: Path, text: bytes, done: threading.Event) -> None:
    """As most do: beside, then into its place; more often than the agent looks."""
    beside = path.with_name(".theirs")
    while not done.wait(0.3):
        beside.write_bytes(text)
        beside.rename(path)


def test_a_full_disk_is_told_changes_nothing_and_is_over_when_there_is_room(steered: Node) -> None:
    steered.end_all()
    steered.unchain()
    directory = steered.runtime.conf_dir
    theirs = (directory / CONFLIST).read_bytes()
    inside = [*steered.machine.enter(), "bash", "-c"]
    steered.lab.node.run(
        [*inside, f"mount -t tmpfs -o size=8k tmpfs {directory}; cat > {directory}/{CONFLIST}"], stdin=theirs.decode()
    )
    try:
        steered.lab.node.run([*inside, f"head -c 100000 /dev/zero > {directory}/full || true"])
        for which in steered.ours:
            steered.start(which)
        steered.wait("it to be told", lambda: any("No space left" in one for one in _problems(steered)))
        assert steered.lab.node.run([*inside, f"cat {directory}/{CONFLIST}"]).stdout.encode() == theirs
        assert steered.lab.node.run([*inside, f"ls -A {directory}"]).stdout.split() == [CONFLIST, "full"]
        steered.lab.node.run([*inside, f"rm {directory}/full"])
        steered.wait("the plugin to be chained", lambda: not any("CNI" in one for one in _problems(steered)))
        assert "headgate-cni" in steered.lab.node.run([*inside, f"cat {directory}/{CONFLIST}"]).stdout
    finally:
        steered.end_all()
        steered.lab.node.run([*inside, f"umount {directory}"])


def test_of_two_lists_the_first_is_the_one_that_runtimes_take_and_the_one_that_holds_our_plugin(steered: Node) -> None:
    """Some node agents write theirs beside an older one's, in front of it."""
    directory = steered.runtime.conf_dir
    second = json.loads((directory / CONFLIST).read_text())
    second["plugins"] = [one for one in second["plugins"] if one["type"] != "headgate-cni"]
    first = directory / "05-first.conflist"
    first.write_text(json.dumps({**second, "name": "first"}))
    try:
        steered.wait("the plugin to be in it", lambda: "headgate-cni" in first.read_text())
        steered.wait("the runtime to have read it", lambda: steered.runtime.takes("first"))
        steered.run("new", web.sleeper())
        assert steered.pods()["new"] in ("installed", "proved")
        steered.wait_proved("new")
        steered.clear()
    finally:
        first.unlink()
        steered.wait("the runtime to have read it", lambda: not steered.runtime.takes("first"))


def _problems(node: Node) -> list[str]:
    return list(node.lab.agent_get("/pods")["problems"])
