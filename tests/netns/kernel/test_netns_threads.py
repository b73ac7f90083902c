"""Threads that enter namespaces: the right one, and out again, or the process ends."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.kernel.netns import STRANDED_EXIT, NetnsRefused, NetnsThreads, host_netns_id, open_netns
from agent.pods import NetnsId
from tests.netns.kernel.scratch import Scratch


def here() -> NetnsId:
    status = Path("/proc/thread-self/ns/net").stat()
    return NetnsId(status.st_dev, status.st_ino)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_call_runs_inside_on_another_thread_and_ours_never_moves() -> None:
    async def run() -> None:
        threads = NetnsThreads(2)
        with Scratch() as pod, pod.open() as netns:
            assert await threads.run(netns, here) == netns.id != host_netns_id()
            assert await threads.run(netns, threading.get_ident) != threading.get_ident()
            assert here() == host_netns_id()
        threads.close()

    before = open_descriptors()
    asyncio.run(run())
    assert open_descriptors() == before


def test_thread_returns_also_after_a_failed_call() -> None:
    def fail() -> None:
        raise LookupError("inside")

    async def run() -> None:
        threads = NetnsThreads(1)
        with Scratch() as one, Scratch() as two, one.open() as first, two.open() as second:
            for _ in range(3):
                with pytest.raises(LookupError):
                    await threads.run(first, fail)
                assert await threads.run(second, here) == second.id
            assert threads._pool.submit(here).result() == host_netns_id()
        threads.close()

    asyncio.run(run())


def test_b46_many_calls_at_once_each_see_their_own_namespace() -> None:
    async def run() -> None:
        threads = NetnsThreads(4)
        pods = [Scratch() for _ in range(20)]
        opened = [pod.open() for pod in pods]
        found = await asyncio.gather(*(threads.run(netns, here) for netns in opened * 5))
        assert found == [netns.id for netns in opened * 5]
        for netns, pod in zip(opened, pods, strict=True):
            netns.close()
            pod.__exit__()
        threads.close()

    asyncio.run(run())


def test_caller_that_gave_up_and_closed_does_not_send_the_call_elsewhere() -> None:
    """The call waits behind another; by the time it runs, the descriptor's number belongs to another pod."""

    async def run() -> None:
        threads = NetnsThreads(1)
        gate = threading.Event()
        seen: list[NetnsId] = []
        with Scratch() as meant, Scratch() as other, other.open() as blocked:
            waiting = asyncio.create_task(threads.run(blocked, gate.wait))
            await asyncio.sleep(0)
            target = meant.open()
            number, identity = target.fd, target.id
            queued = threads.run(target, lambda: seen.append(here()))
            task = asyncio.create_task(queued)
            await asyncio.sleep(0)
            target.close()
            stranger = os.dup2(other.fd, number)
            gate.set()
            await asyncio.gather(waiting, task)
            os.close(stranger)
        assert seen == [identity]
        threads.close()

    before = open_descriptors()
    asyncio.run(run())
    assert open_descriptors() == before


def test_cancelled_call_gives_its_descriptor_back() -> None:
    async def run() -> None:
        threads = NetnsThreads(1)
        gate = threading.Event()
        with Scratch() as pod, pod.open() as netns:
            blocking = asyncio.create_task(threads.run(netns, gate.wait))
            queued = [asyncio.create_task(threads.run(netns, here)) for _ in range(5)]
            await asyncio.sleep(0)
            for task in queued:
                task.cancel()
            gate.set()
            await blocking
            assert [type(error) for error in await asyncio.gather(*queued, return_exceptions=True)] == [
                asyncio.CancelledError
            ] * 5
        threads.close()

    before = open_descriptors()
    asyncio.run(run())
    assert open_descriptors() == before


def test_b47_pid_that_passed_to_another_namespace_is_refused() -> None:
    with Scratch() as decided, Scratch() as other:
        with decided.open() as netns:
            identity = netns.id
        with open_netns(decided.path, identity) as again:
            assert again.id == identity
        with pytest.raises(NetnsRefused, match="was meant"):
            open_netns(other.path, identity)


STRANDED = """
import asyncio, os
from agent.kernel.netns import NetnsThreads, open_netns

async def main() -> None:
    threads = NetnsThreads(1)
    threads._home = os.open("/dev/null", os.O_RDONLY)  # the way back is gone
    with open_netns("/proc/self/ns/net", allow_own=True) as netns:
        await threads.run(netns, print, "inside", flush=True)
    print("went on")

asyncio.run(main())
"""


def test_thread_that_cannot_return_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", STRANDED], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == STRANDED_EXIT
    assert done.stdout == "inside\n"
    assert "cannot leave a pod's network namespace" in done.stderr
