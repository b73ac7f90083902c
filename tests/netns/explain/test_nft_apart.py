"""libnftables is asked for JSON in a process of its own: what makes it abort ends nobody else."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel import nft_apart
from agent.kernel.refused import KernelRefused
from tests.netns.kernel.scratch import Scratch

RULES = """\
add table ip n
add chain ip n plain
add rule ip n plain accept
add chain ip n hostile
add rule ip n hostile iifname "bad\\377" drop
add set ip n s { type inet_service; elements = { 80 }; }
"""


@pytest.fixture
def pod() -> Iterator[Scratch]:
    with Scratch() as made:
        made.shell("sh", "-c", f"printf '%b' '{RULES}' | nft -f -")
        yield made


def children() -> set[str]:
    return set(Path("/proc/thread-self/children").read_text().split())


def chain(name: str) -> str | None:
    return nft_apart.list_json("chain", "ip", "n", name)


def test_it_answers_from_the_namespace_of_the_thread_that_asks(pod: Scratch) -> None:
    assert '"accept"' in (pod.run(chain, "plain") or "")
    assert pod.run(nft_apart.list_json, "set", "ip", "n", "s") is not None
    assert chain("plain") is None  # not in this one


def test_what_is_not_there_is_none(pod: Scratch) -> None:
    assert pod.run(chain, "nowhere") is None


def test_a_name_that_makes_libnftables_abort_is_an_error_and_the_next_question_is_answered(pod: Scratch) -> None:
    def ask() -> None:
        with nft_apart.one_helper():
            for _ in range(2):
                with pytest.raises(KernelRefused, match="SIGABRT") as caught:
                    chain("hostile")
                assert "no UTF-8" in caught.value.remedy and caught.value.command == "nft -j list chain ip n hostile"
                assert '"accept"' in (chain("plain") or "")

    pod.run(ask)


def test_a_refusal_is_told_as_it_is(pod: Scratch) -> None:
    with pytest.raises(KernelRefused):
        pod.run(nft_apart.list_json, "warp", "ip", "n", "plain")


def test_no_process_and_no_descriptor_is_left(pod: Scratch) -> None:
    before = set(Path("/proc/self/fd").iterdir())

    def ask() -> tuple[set[str], set[str]]:
        with nft_apart.one_helper():
            chain("plain")
            with nft_apart.one_helper():
                chain("plain")
            during = children()
        with pytest.raises(KernelRefused):
            chain("hostile")
        return during, children()

    during, after = pod.run(ask)
    assert len(during) == 1 and after == set()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_helper_that_was_killed_is_made_anew(pod: Scratch) -> None:
    def ask() -> None:
        with nft_apart.one_helper():
            chain("plain")
            (child,) = children()
            os.kill(int(child), signal.SIGKILL)
            with pytest.raises(KernelRefused, match="SIGKILL"):
                chain("plain")
            assert chain("plain") is not None

    pod.run(ask)


def test_the_helper_ends_with_the_process_that_made_it(pod: Scratch) -> None:
    """As when the command is killed while it explains."""

    def ask() -> int:
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            helper = nft_apart.Helper()
            helper.list_json("chain", "ip", "n", "plain")
            os.close(reading)
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(writing)
        os.waitpid(process, 0)
        try:
            return len(os.read(reading, 1))  # returns when nobody has the other end any more: the helper had it too
        finally:
            os.close(reading)

    assert pod.run(ask) == 0


def test_the_child_keeps_nothing_open_of_who_made_it(pod: Scratch) -> None:
    """subprocess waits for its own child at a pipe: while another process has its other end, it waits for ever."""
    reading, writing = os.pipe()
    try:

        def ask() -> None:
            with nft_apart.one_helper():
                assert chain("plain") is not None
                os.close(writing)
                os.set_blocking(reading, False)
                assert os.read(reading, 1) == b""

        pod.run(ask)
    finally:
        os.close(reading)
