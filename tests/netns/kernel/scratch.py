"""Network namespaces without a name, gone with their last descriptor: nothing mounted, nothing left behind."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec, Self, TypeVar

from agent.kernel.netns import OpenNetns, enter, leave_for_scratch, open_netns
from agent.pods import NetnsId

P = ParamSpec("P")
T = TypeVar("T")

POD4, NODE4 = "10.99.0.5", "10.99.0.9"
POD6, NODE6 = "fd99::5", "fd99::9"


def on_thread(call: Callable[[], T]) -> T:
    """`call` on a thread of its own, which may end in another namespace; its result or exception."""
    outcome: list[tuple[T | None, BaseException | None]] = []

    def body() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    ((result, error),) = outcome
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


class Scratch:
    def __init__(self) -> None:
        def make() -> int:
            leave_for_scratch()
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.fd = on_thread(make)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @property
    def identity(self) -> NetnsId:
        status = os.fstat(self.fd)
        return NetnsId(status.st_dev, status.st_ino)

    def open(self) -> OpenNetns:
        return open_netns(self.path)

    def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def inside() -> T:
            enter(self.fd)
            return fn(*args, **kwargs)

        return on_thread(inside)

    def shell(self, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command], capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


@contextlib.contextmanager
def pod_and_node(*, dad: bool = False) -> Iterator[tuple[Scratch, Scratch]]:
    """A pod and its node, a veth pair between them: eth0 in the pod, veth0 on the node."""
    nodad = () if dad else ("nodad",)
    with Scratch() as pod, Scratch() as node:
        node.shell("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", pod.path)
        node.shell("ip", "link", "set", "veth0", "up")
        node.shell("ip", "addr", "add", f"{NODE4}/24", "dev", "veth0")
        node.shell("ip", "addr", "add", f"{NODE6}/64", "dev", "veth0", "nodad")
        pod.shell("ip", "link", "set", "lo", "up")
        pod.shell("ip", "link", "set", "eth0", "up")
        pod.shell("ip", "addr", "add", f"{POD4}/24", "dev", "eth0")
        pod.shell("ip", "addr", "add", f"{POD6}/64", "dev", "eth0", *nodad)
        yield pod, node
