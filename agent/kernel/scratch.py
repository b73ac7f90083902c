"""Threads that end where they went: into a network namespace made for them, or into one that is there."""

import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from agent.kernel.netns import enter, leave_for_scratch

P = ParamSpec("P")
T = TypeVar("T")


def in_scratch(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`fn(*args, **kwargs)` in an empty network namespace that ends with the call; its result or its exception.

    OSError when none can be made (permission: CAP_SYS_ADMIN). lo is down in it: what is loaded there counts nothing.
    """
    return _on_thread(leave_for_scratch, lambda: fn(*args, **kwargs))


def inside(fd: int, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`fn(*args, **kwargs)` in the network namespace of descriptor `fd`; its result or its exception. What it starts
    and the sockets that it makes are of that namespace. For a call or two: NetnsThreads keeps its threads.

    OSError when it cannot be entered (permission: CAP_SYS_ADMIN).
    """
    return _on_thread(lambda: enter(fd), lambda: fn(*args, **kwargs))


def make_scratch() -> int:
    """Descriptor of an empty network namespace, which ends when the last one is closed. OSError as `in_scratch`."""
    return in_scratch(os.open, "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _on_thread(go: Callable[[], None], call: Callable[[], T]) -> T:
    outcome: list[T] = []
    raised: list[BaseException] = []

    def body() -> None:
        try:
            go()
            outcome.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body, name="nft-scratch")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return outcome[0]
