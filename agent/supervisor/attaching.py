"""A pod that its runtime is about to start: held until it is steered, let go when it is taken down.

Nothing runs in it yet, so nothing can leave it unsteered: what the CNI plugin is answered decides whether it starts.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from agent.kernel.held import Found
from agent.kernel.netns import NetnsRefused, open_netns
from agent.kernel.refused import KernelRefused
from agent.kube.errors import ApiRefused, CannotReach, InvalidAccess
from agent.pods import InvalidPod, NetnsId
from agent.pods.sandbox import Sandbox
from agent.reconcile import Life, State
from agent.sources.cni_request import Attachment, CniCode, NotAttached
from agent.sources.kube_pod import NodePod
from agent.sources.kubernetes_pods import KubernetesPods

STEERED_S: Final = 4.5
"""Below the five seconds within which the plugin is answered: to say why it was in vain."""
REMOVED_S: Final = 2.0
"""What still has connections is drained, and a sandbox that is taken down is not to wait for that: its namespace takes
our rules along."""
_STEERED: Final = frozenset({State.INSTALLED, State.PROVED})


class Lives(Protocol):
    """What is asked of agent.supervisor.registry.Registry."""

    def life(self, uid: str, /) -> Life | None: ...

    def lives(self) -> tuple[Life, ...]: ...


Compare = Callable[[Life], Awaitable[Found]]
"""The rules read back. Raises KernelRefused, NetnsRefused, OSError."""


class Attaching:
    """agent.sources.cni.Attachments, over the source that tells of pods and the registry that steers them."""

    def __init__(
        self,
        pods: KubernetesPods,
        lives: Lives,
        compare: Compare,
        proxy_connected: Callable[[], bool],
        mounts: tuple[Path, ...],
        proc: Path = Path("/proc"),
    ) -> None:
        """`mounts`, `proc`: the node's, as the agent sees them."""
        self._pods = pods
        self._lives = lives
        self._compare = compare
        self._proxy_connected = proxy_connected
        self._mounts = mounts
        self._proc = proc
        self._changed = asyncio.Event()

    def told(self, life: Life) -> None:
        """A life has changed: who waits for it looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def gone(self, life: Life, *, replaced: bool) -> None:
        self.told(life)

    async def add(self, attachment: Attachment) -> None:
        by_s = asyncio.get_running_loop().time() + STEERED_S
        pod = await self._known(attachment, by_s)
        if self._pods.none_of_ours(pod):
            return
        sandbox = self._located(attachment)
        ref = pod.ref
        try:
            held = replace(ref, addresses=attachment.addresses or ref.addresses)
            self._pods.hold(attachment.container_id, held, sandbox)
            life = await self._steered(ref.uid, str(ref), sandbox.netns_id, by_s)
            await self._read_back(life)
        except BaseException:
            # The runtime takes the sandbox down and makes another.
            self._pods.let_go(attachment.container_id, sandbox.netns_id)
            raise

    async def remove(self, attachment: Attachment) -> None:
        try:
            netns_id = _identity(self._path(attachment.netns)) if attachment.netns else None
        except OSError:
            netns_id = None  # gone already, and its rules with it
        self._pods.let_go(attachment.container_id, netns_id)
        if netns_id is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REMOVED_S):
                    await self._gone(netns_id)

    async def check(self, attachment: Attachment) -> None:
        pod = await self._known(attachment, asyncio.get_running_loop().time() + STEERED_S)
        if self._pods.none_of_ours(pod):
            return
        life = self._lives.life(pod.ref.uid)
        if life is None or life.state not in _STEERED:
            raise NotAttached(CniCode.CANNOT_ENROL, _standing(str(pod.ref), life))
        if attachment.netns and life.netns_id != self._located(attachment).netns_id:
            raise NotAttached(CniCode.CANNOT_ENROL, f"pod {pod.ref} is steered in another network namespace")
        await self._read_back(life)

    async def status(self) -> None:
        if not self._proxy_connected():
            raise NotAttached(
                CniCode.NOT_AVAILABLE, "no proxy is connected to the agent: is its pod on this node running?"
            )

    async def keep_only(self, container_ids: frozenset[str]) -> None:
        self._pods.keep_only(container_ids)

    # ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _known(self, attachment: Attachment, by_s: float) -> NodePod:
        where = f"pod {attachment.namespace}/{attachment.name}"
        try:
            async with asyncio.timeout_at(by_s):
                pod = await self._pods.known(attachment.namespace, attachment.name, attachment.uid)
        except TimeoutError:
            why = f"{where}: the API server has not told of it within {STEERED_S:g} s"
            raise NotAttached(CniCode.TRY_AGAIN_LATER, why) from None
        except (ApiRefused, CannotReach, InvalidAccess) as error:
            raise NotAttached(
                CniCode.TRY_AGAIN_LATER, f"{where}: the API server does not tell of it: {error}"
            ) from error
        except InvalidPod as error:
            raise NotAttached(CniCode.CANNOT_ENROL, f"{where}: {error}") from error
        if attachment.uid and pod.known_as != attachment.uid:
            raise NotAttached(CniCode.TRY_AGAIN_LATER, f"{where}: another pod has that name now, uid {pod.ref.uid}")
        return pod

    def _located(self, attachment: Attachment) -> Sandbox:
        path = self._path(attachment.netns)
        try:
            with open_netns(path) as netns:
                return Sandbox(path, netns.id)
        except (OSError, NetnsRefused) as error:
            where = f"pod {attachment.namespace}/{attachment.name}"
            raise NotAttached(CniCode.CANNOT_ENROL, f"{where}: its network namespace: {error}") from error

    def _path(self, netns: str) -> str:
        """As the agent sees it: where the runtime's directory is mounted, under the same name; of a process (Docker,
        cri-o without pinned namespaces), where the node's /proc is."""
        if netns.startswith("/proc/"):
            return str(self._proc / netns.removeprefix("/proc/"))
        places = (Path(netns), *(directory / Path(netns).name for directory in self._mounts))
        return str(next((place for place in places if place.exists()), netns))

    async def _steered(self, uid: str, name: str, netns_id: NetnsId, by_s: float) -> Life:
        life: Life | None = None
        try:
            async with asyncio.timeout_at(by_s):
                while True:
                    changed = self._changed
                    life = self._lives.life(uid)
                    if life is not None and life.netns_id == netns_id:
                        if life.state in _STEERED:
                            return life
                        if life.state is State.FAILED:
                            raise NotAttached(CniCode.CANNOT_ENROL, _standing(name, life))
                    await changed.wait()
        except TimeoutError:
            why = f"{_standing(name, life)}; not steered within {STEERED_S:g} s"
            raise NotAttached(CniCode.TRY_AGAIN_LATER, why) from None

    async def _gone(self, netns_id: NetnsId) -> None:
        """Until nothing is served in that namespace. Looked for once: with each change of any pod it would be a quarter
        of the agent's work while twenty pods a second come and go at 250."""
        for uid in [life.pod.uid for life in self._lives.lives() if life.netns_id == netns_id]:
            while (life := self._lives.life(uid)) is not None and life.netns_id == netns_id:
                await self._changed.wait()

    async def _read_back(self, life: Life) -> None:
        try:
            found = await self._compare(life)
        except (KernelRefused, NetnsRefused, OSError) as error:
            raise NotAttached(CniCode.RULES_DIFFER, f"pod {life.pod}: its rules cannot be read: {error}") from error
        if found.changes:
            raise NotAttached(CniCode.RULES_DIFFER, f"pod {life.pod}: its rules are not as planned: {found.changes[0]}")


def _identity(path: str) -> NetnsId:
    status = Path(path).stat()
    return NetnsId(status.st_dev, status.st_ino)


def _standing(name: str, life: Life | None) -> str:
    if life is None:
        return f"pod {name}: the agent does not know it yet"
    return f"pod {name} is {life.state.value}" + (f": {life.reason}" if life.reason else "")
