"""What an agent writes onto its pods comes back to it by its own watch."""

import asyncio
from pathlib import Path

from agent.pods.told import STATUS
from agent.sources.kubernetes_pods import SOUGHT_EVERY_S
from tests.kube.fake_proc import cgroup
from tests.kube.pods_of_a_node import cluster, pod


def test_an_annotation_of_ours_is_known_and_nobody_looks_for_anything_because_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as here:
            here.proc.process(77, cgroup("v2, cgroupfs"), here.proc.namespace("pod"))
            here.apply(pod())
            await here.source.first()
            before = len(here.looks)
            for number in range(5):
                here.apply(pod(metadata={"annotations": {STATUS: f"word {number}"}}))
                async with asyncio.timeout(5):
                    while [one.told for one, _ in here.source.of_node()] != [((STATUS, f"word {number}"),)]:
                        await asyncio.sleep(0)
                await asyncio.sleep(2 * SOUGHT_EVERY_S)  # within which it was looked for
            assert len(here.looks) <= before + 1, "one was due anyway"
            here.apply(pod(status={"phase": "Failed"}))
            await here.next()
            async with asyncio.timeout(5):
                while len(here.looks) == before:
                    await asyncio.sleep(0)

    asyncio.run(scenario())
