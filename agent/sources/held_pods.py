"""Pods whose runtime asked for them before any process runs in them, and before the API server knows their address."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent.pods import PodRef
from agent.pods.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class HeldPod:
    container_id: str
    pod: PodRef
    sandbox: Sandbox


class HeldPods:
    """By uid, one each: a sandbox made anew takes the former one's place."""

    def __init__(self) -> None:
        self._held: dict[str, HeldPod] = {}

    def __iter__(self) -> Iterator[HeldPod]:
        return iter(tuple(self._held.values()))

    def get(self, uid: str) -> HeldPod | None:
        return self._held.get(uid)

    def hold(self, one: HeldPod) -> None:
        self._held[one.pod.uid] = one

    def drop(self, one: HeldPod) -> None:
        """Nothing happens where another one has taken its place."""
        if self._held.get(one.pod.uid) is one:
            del self._held[one.pod.uid]

    def of_container(self, container_id: str) -> HeldPod | None:
        return next((one for one in self._held.values() if one.container_id == container_id), None)
