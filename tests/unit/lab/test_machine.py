"""What counts as left behind."""

import subprocess
import sys
from dataclasses import replace

from agent.lab import machine
from agent.lab.machine import Machine

BEFORE = Machine(
    namespaces=frozenset({"mine"}),
    ruleset=("table ip filter {", "}"),
    routing_rules=frozenset({"ip -4 rule: 0:\tfrom all lookup local"}),
    mounts=frozenset({"/ ext4"}),
)


def test_an_equal_machine_has_nothing_left() -> None:
    assert machine.leftovers(BEFORE, BEFORE, "none") == []


def test_each_kind_of_thing_left_is_named() -> None:
    after = Machine(
        namespaces=BEFORE.namespaces | {"hg-none-client"},
        ruleset=(*BEFORE.ruleset, "table inet headgate {", "}"),
        routing_rules=frozenset({"ip -4 rule: 32764:\tfrom all fwmark 0x111 lookup 100"}),
        mounts=BEFORE.mounts | {"/run/netns/hg-none-client nsfs", "/run/netns tmpfs"},
    )
    assert machine.leftovers(BEFORE, after, "none") == [
        "network namespace hg-none-client",
        "nft ruleset of the machine changed: table inet headgate {",
        "ip -4 rule: 32764:\tfrom all fwmark 0x111 lookup 100 (new)",
        "ip -4 rule: 0:\tfrom all lookup local (gone)",
        "mount /run/netns tmpfs",
        "mount /run/netns/hg-none-client nsfs",
    ]


def test_another_lab_that_came_up_meanwhile_is_not_ours() -> None:
    after = replace(
        BEFORE,
        namespaces=BEFORE.namespaces | {"hg-other-client"},
        mounts=BEFORE.mounts | {"/run/netns/hg-other-client nsfs"},
    )
    assert machine.leftovers(BEFORE, after, "none") == []


def test_a_grandchild_whose_parent_has_ended_is_still_found() -> None:
    """In a process of its own, which becomes the reaper of orphans for good."""
    code = """
import subprocess, sys
from agent.lab import machine
machine.adopt_orphans()
script = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid)"
pid = int(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True).stdout)
assert machine.descendants() == [f"process {pid} 'sleep'"], machine.descendants()
import os, signal
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
assert machine.descendants() == []
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
