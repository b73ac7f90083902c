"""What this process changes itself is known as its own, also where it sees none of the numbers that the kernel says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import asyncio, subprocess
from agent.kernel import nft, nsid
from agent.kernel.hearing import Hearing, who
from agent.kernel.netns import NetnsThreads
from agent.plan import PlanSettings
from tests.netns.kernel.scratch import Scratch

hearing, threads = Hearing(PlanSettings().return_path.table), NetnsThreads(2)

def told(pod):
    heard, _ = hearing.read()
    return [who(one, pod.identity) for one in heard]

async def main():
    with Scratch() as pod:
        nsid.number_of(pod.fd)
        with pod.open() as netns:
            for number in range(4):
                await threads.run(netns, nft.apply, f"add table inet t{number}\\n")
        print(told(pod))
        pod.shell("nft", "add table inet theirs")
        (name,) = told(pod)
        print(name.partition(" (pid ")[0])

asyncio.run(main())
threads.close()
hearing.close()
"""


@pytest.mark.parametrize(
    "command", [(), ("unshare", "--pid", "--fork", "--mount-proc")], ids=["the node's pids", "a pod's pids"]
)
def test_changes_of_our_own_threads_are_ours_and_those_of_our_children_are_not(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "['', '', '', '']\nnft\n", done.stderr
