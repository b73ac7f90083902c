"""The surroundings of a sidecar: one pod, announced until a worker has it."""

import asyncio
import os
from contextlib import closing
from typing import cast

import pytest
from click.testing import CliRunner

from proxy.cli import proxy
from proxy.datapath.standing import CallFrom, Standing
from proxy.errors import CannotServe
from proxy.supervisor import sidecar
from proxy.supervisor.node_policy import NodePolicy
from proxy.supervisor.pods import PodName, Pods
from proxy.supervisor.sidecar import OwnListeners, OwnPod

WEB = PodName("shop/web", "shop", "web", "default")
STANDING = Standing(True, False, CallFrom.PASSTHROUGH, CallFrom.PASSTHROUGH)


class Refusing:
    """Pods whose workers take nothing the first times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked: list[PodName] = []

    async def add(self, pod: PodName, netns_fd: int) -> None:
        os.close(netns_fd)
        self.asked.append(pod)
        if len(self.asked) <= self.refusals:
            raise CannotServe(f"pod {pod}: no worker took it")


class Files:
    """A policy that is read from files."""

    objects = None


def announced(refusals: int, told: list[str]) -> tuple[OwnPod, Refusing]:
    pods = Refusing(refusals)
    own = OwnPod(WEB, OwnListeners(), STANDING, 3)
    own.attend(cast(Pods, pods), cast(NodePolicy, Files()), lambda: told.append(own.missing), asyncio.Event())
    return own, pods


def test_it_announces_its_pod_until_a_worker_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "AGAIN_S", 0.001)
    told: list[str] = []

    async def run() -> None:
        own, pods = announced(2, told)
        with closing(own):
            assert own.missing == "no worker has taken the pod's listeners yet"
            (announce,) = own.to_the_end
            await asyncio.wait_for(announce(), 5)
            assert pods.asked == [WEB] * 3

    asyncio.run(run())
    assert told == [""]


def test_one_that_ends_announces_no_more() -> None:
    async def run() -> None:
        own, pods = announced(1000, [])
        with closing(own):
            (announce,) = own.to_the_end
            announcing = asyncio.create_task(announce())
            while not pods.asked:
                await asyncio.sleep(0)
            own.leave()
            await asyncio.wait_for(announcing, 5)
            assert own.missing

    asyncio.run(run())


def test_every_worker_serves_the_pod_whatever_policy_says() -> None:
    own, _ = announced(0, [])
    with closing(own):
        assert own.shares({("shop", "web"): 1, ("shop", "other"): 2}) == {("shop", "web"): 3}
        assert own.worker_options == ("--standing", STANDING.words())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sidecar", "--take-over"], "--take-over: a sidecar ends with its container"),
        (["--sidecar", "--pod-name", "a b"], "Invalid value for --pod-name: 'a b' is no name by RFC 1123"),
        (["--sidecar", "--pod-name", "web", "--pod-namespace", "x" * 64], "Invalid value for --pod-namespace"),
        (["--sidecar", "--pod-name", "web", "--service-account", ""], "Invalid value for --service-account"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(options: list[str], said: str) -> None:
    result = CliRunner().invoke(proxy, options)
    assert result.exit_code == 2
    assert said in result.output
