"""Proofs give way to pods on their way in, and not for ever."""

import asyncio

from agent.supervisor.precedence import Precedence


def test_what_may_wait_waits_until_the_last_of_those_before_it_is_done() -> None:
    async def scenario() -> None:
        precedence = Precedence()
        with precedence.first():
            with precedence.first():
                waiting = asyncio.create_task(precedence.give_way(60.0))
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5.0)

    asyncio.run(scenario())


def test_from_one_step_to_the_next_of_a_single_pod_nobody_slips_in() -> None:
    async def scenario() -> None:
        precedence = Precedence()
        with precedence.first():
            waiting = asyncio.create_task(precedence.give_way(60.0))
            await asyncio.sleep(0)
        with precedence.first():  # no turn of the loop between the two
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5.0)

    asyncio.run(scenario())


def test_patience_ends() -> None:
    async def scenario() -> None:
        precedence = Precedence()
        with precedence.first():
            await asyncio.wait_for(precedence.give_way(0.01), 5.0)

    asyncio.run(scenario())
