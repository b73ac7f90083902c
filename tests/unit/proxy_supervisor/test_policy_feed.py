"""Workers are told of policy one generation at a time, from what each has, and never of what it cannot know."""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from proxy.model.snapshot import PolicySnapshot
from proxy.model.workload import Workload
from proxy.policy.staging import PolicyStaging
from proxy.supervisor.policy_feed import PolicyFeed
from proxy.workerlink import PolicySlice, PolicySwitch


class FakeWorker:
    """Follows what it is told, and says what is in force when the test wants it to."""

    def __init__(self, feed: PolicyFeed, index: int = 0) -> None:
        self.feed = feed
        self.index = index
        self.staging = PolicyStaging()
        self.rows = 0
        self.told: list[PolicySwitch] = []
        self.snapshot: PolicySnapshot | None = None

    def send(self, message: PolicySlice | PolicySwitch) -> None:
        if isinstance(message, PolicySlice):
            rows = pickle.loads(message.rows)
            self.rows += len(rows)
            self.staging.apply(rows)
        else:
            self.told.append(message)
            self.snapshot = self.staging.switch(message.generation)

    def restart(self) -> None:
        self.staging, self.rows = PolicyStaging(), 0
        self.feed.started(self)

    async def generation(self, wanted: int) -> None:
        async with asyncio.timeout(5):
            while not self.told or self.told[-1].generation != wanted:
                await asyncio.sleep(0)

    def in_force(self) -> None:
        self.feed.in_force(self, self.told[-1].generation)


def policy(generation: int, *names: str, former: PolicySnapshot | None = None) -> PolicySnapshot:
    known = {} if former is None else former.pods
    made = {("ns", n): known.get(("ns", n)) or Workload("ns", n, n, "default", n, "v1", n, "v1", (), ()) for n in names}
    return PolicySnapshot(generation, {}, {}, made, {}, ())


def play(scene: Callable[[PolicyFeed], Awaitable[None]]) -> None:
    with ThreadPoolExecutor(1) as thread:

        async def run() -> None:
            await scene(PolicyFeed(thread))

        asyncio.run(run())


def test_a_worker_that_starts_hears_everything_and_then_only_what_changes() -> None:
    async def scene(feed: PolicyFeed) -> None:
        worker = FakeWorker(feed)
        feed.started(worker)
        first = policy(1, *(f"p{number}" for number in range(1000)))
        feed.offer(first)
        await worker.generation(1)
        assert worker.snapshot == first
        assert worker.rows >= 1000
        worker.in_force()
        worker.rows = 0
        second = policy(2, *(f"p{number}" for number in range(1001)), former=first)
        feed.offer(second)
        await worker.generation(2)
        assert worker.snapshot == second
        assert worker.rows == 2, "a workload and its name"

    play(scene)


def test_what_comes_while_a_worker_is_not_ready_yet_is_told_in_one_step() -> None:
    async def scene(feed: PolicyFeed) -> None:
        worker = FakeWorker(feed)
        feed.started(worker)
        feed.offer(policy(1, "a"))
        await worker.generation(1)
        for generation in range(2, 30):
            feed.offer(policy(generation, f"p{generation}"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(worker.told) == 1, "it has not said that the first is in force"
        worker.in_force()
        await worker.generation(29)
        assert [one.generation for one in worker.told] == [1, 29]
        assert worker.snapshot == policy(29, "p29")

    play(scene)


def test_a_new_process_knows_nothing_whatever_the_former_was_told() -> None:
    async def scene(feed: PolicyFeed) -> None:
        worker, other = FakeWorker(feed), FakeWorker(feed, 1)
        for one in (worker, other):
            feed.started(one)
        first = policy(1, "a", "b")
        feed.offer(first)
        await worker.generation(1)
        await other.generation(1)
        other.in_force()
        worker.in_force()
        second = policy(2, "a", "c", former=first)
        feed.offer(second)
        await worker.generation(2)
        feed.ended(worker)
        feed.in_force(worker, 2)  # its last word, late
        worker.restart()
        third = policy(3, "a", "c", "d", former=second)
        feed.offer(third)
        async with asyncio.timeout(5):
            while worker.snapshot is None or worker.told[-1].generation < 2 or len(worker.told) < 3:
                await asyncio.sleep(0)
        worker.in_force()
        await worker.generation(3)
        await other.generation(2)
        other.in_force()
        await other.generation(3)
        assert worker.snapshot == other.snapshot == third

    play(scene)


def test_workers_at_the_same_place_share_what_was_pickled() -> None:
    async def scene(feed: PolicyFeed) -> None:
        sent: list[list[PolicySlice]] = [[], []]

        class Noting(FakeWorker):
            def send(self, message: PolicySlice | PolicySwitch) -> None:
                if isinstance(message, PolicySlice):
                    sent[self.index].append(message)
                super().send(message)

        workers = [Noting(feed, 0), Noting(feed, 1)]
        for worker in workers:
            feed.started(worker)
        feed.offer(policy(1, "a"))
        for worker in workers:
            await worker.generation(1)
        assert [id(one) for one in sent[0]] == [id(one) for one in sent[1]]

    play(scene)


def test_whether_pods_wait_for_their_objects_goes_with_the_switch() -> None:
    async def scene(feed: PolicyFeed) -> None:
        worker = FakeWorker(feed)
        feed.started(worker)
        feed.offer(policy(1), pods_required=True)
        await worker.generation(1)
        assert worker.told == [PolicySwitch(1, True)]

    play(scene)
