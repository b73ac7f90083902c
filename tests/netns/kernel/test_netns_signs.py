"""Names are looked at when the kernel gives a sign, and soon: `ip netns del` is noticed within half a second."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path

import pytest

from agent.sources.events import PodGone, PodSeen, SourceEvent
from agent.sources.netns import NetnsSource
from agent.sources.signs import Signs
from tests.netns.kernel.test_netns_source import Names

BOUND_S = 0.5
SLACK_S = 0.5
"""A busy test machine's."""


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    made = Names(tmp_path)
    with ExitStack() as stack:
        stack.callback(lambda: [made.delete(name) for name in sorted(made.mounted)])
        yield made


class Counting(NetnsSource):
    """Counts its looks: the one thing that a source does not tell."""

    looks = 0

    def look(self) -> list[SourceEvent]:
        self.looks += 1
        return super().look()


def play(source: NetnsSource, story: Callable[[Callable[[], Awaitable[SourceEvent]]], Awaitable[None]]) -> None:
    async def run() -> None:
        async with aclosing(aiter(source)) as events:  # type: ignore[type-var]
            await story(lambda: asyncio.wait_for(anext(events), 10))

    asyncio.run(run())


def test_mount_unmount_and_the_directory_are_signs(names: Names) -> None:
    with Signs((names.directory,)) as signs:
        signs.seen()
        assert not signs.seen()
        (names.directory / "web").touch()
        assert signs.seen() and not signs.seen()
        names.add("web")
        assert signs.seen() and not signs.seen()
        names.delete("web")
        assert signs.seen() and not signs.seen()


def test_path_that_is_not_there_yet_is_a_sign_when_it_comes(tmp_path: Path) -> None:
    with Signs((tmp_path / "pods.yaml",)) as signs:
        signs.seen()
        (tmp_path / "pods.yaml").write_text("")
        assert signs.seen() and not signs.seen()


def test_namespace_that_comes_and_one_that_goes_are_noticed_within_half_a_second(names: Names) -> None:
    async def story(following: Callable[[], Awaitable[SourceEvent]]) -> None:
        loop = asyncio.get_running_loop()
        names.add("first")
        assert isinstance(await following(), PodSeen)
        names.add("web")
        began_s = loop.time()
        seen = await following()
        assert isinstance(seen, PodSeen) and seen.pod.name == "web"
        assert loop.time() - began_s < BOUND_S + SLACK_S
        names.delete("web")
        began_s = loop.time()
        assert await following() == PodGone(seen.pod.uid)
        assert loop.time() - began_s < BOUND_S + SLACK_S

    play(NetnsSource(None, names.directory), story)


def test_nothing_is_looked_at_while_nothing_happens(names: Names) -> None:
    names.add("web")
    source = Counting(None, names.directory, look_every_s=0.005)

    async def run() -> None:
        async with aclosing(aiter(source)) as events:  # type: ignore[type-var]
            await anext(events)
            waiting = asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait((waiting,), timeout=0.5)
            assert not done
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())
    assert source.looks < 20, "others' labs on this machine mount things too, but a look at each turn would be 100"


def test_link_to_a_namespace_gives_no_sign_and_is_looked_at_all_the_same(names: Names, tmp_path: Path) -> None:
    links = tmp_path / "elsewhere"
    links.mkdir()
    link = links / "web"
    link.symlink_to("/proc/self/ns/net")
    pods_file = tmp_path / "pods.yaml"
    pods_file.write_text(f"pods: [{{name: web, netns: {link}}}]")

    async def story(following: Callable[[], Awaitable[SourceEvent]]) -> None:
        seen = await following()
        assert isinstance(seen, PodSeen)
        link.unlink()
        assert await following() == PodGone(seen.pod.uid)

    play(NetnsSource(pods_file, names.directory), story)
