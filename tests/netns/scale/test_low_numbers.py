"""libnftables in a process with more than a thousand descriptors: it waits with select(2), and glibc ends whoever gives
that a number of 1,024 or more. Each in a process of its own, which the fault would end."""

import resource
import subprocess
import sys
import textwrap

import pytest

_SET: str = """
import os, resource, threading
from agent.kernel import nft
from agent.kernel.scratch import in_scratch

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))

def use(number):
    nft.apply(f"add table inet t{number}")
    assert nft.list_table(f"t{number}")

def fill(limit=1200):
    return [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(limit)]
"""


def _run(body: str) -> str:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.fail("the machine's hard limit of descriptors is below 2,048: nothing can be shown")
    command = [sys.executable, "-X", "faulthandler", "-c", _SET + textwrap.dedent(body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_scripts_are_applied_and_read_back_with_more_than_a_thousand_descriptors_open() -> None:
    said = _run(
        """
        nft.keep_low_numbers()
        fill()
        def many():
            for number in range(40):
                use(number)
        in_scratch(many)
        threads = [threading.Thread(target=in_scratch, args=(many,)) for _ in range(6)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print("all", len(os.listdir("/proc/self/fd")) > 1100)
        """
    )
    assert said == "all True\n"


def test_without_low_numbers_kept_back_it_is_refused_and_the_process_lives() -> None:
    said = _run(
        """
        fill()
        try:
            in_scratch(use, 1)
        except OSError as error:
            print(error.errno, error.strerror)
        """
    )
    assert said.startswith("24 no descriptor below 1,024 is free")


def test_with_no_descriptor_left_at_all_it_works_by_what_was_kept_back() -> None:
    said = _run(
        """
        in_scratch(use, 0)  # what the loader opens is open
        nft.keep_low_numbers()
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        def starved():
            taken = []
            try:
                while True:
                    taken += fill(1)
            except OSError:
                pass
            for number in range(5):
                use(number)
            print("works")
            try:
                fill(1)
            except OSError as error:
                print(error.errno)
        in_scratch(starved)
        """
    )
    assert said == "works\n24\n"


def test_with_no_descriptor_left_and_none_kept_back_it_is_refused_and_the_process_lives() -> None:
    said = _run(
        """
        in_scratch(use, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        def starved():
            taken = []
            try:
                while True:
                    taken += fill(1)
            except OSError:
                pass
            try:
                use(1)
            except OSError as error:
                print(error.errno)
        in_scratch(starved)
        """
    )
    assert said == "24\n"


def test_what_is_kept_back_does_not_dwindle_with_use() -> None:
    said = _run(
        """
        nft.keep_low_numbers()
        fill()
        def many():
            for number in range(200):
                use(number)
        in_scratch(many)
        print(len(nft._low._kept))
        """
    )
    assert said == "16\n"
