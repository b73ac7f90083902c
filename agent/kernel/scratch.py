"""A network namespace of a thread's own, for trying out what a pod's is to hold."""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from agent.kernel.netns import leave_for_scratch

P = ParamSpec("P")
T = TypeVar("T")


def in_scratch(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`fn(*args, **kwargs)` in an empty network namespace that ends with the call; its result or its exception.

    OSError when none can be made (permission: CAP_SYS_ADMIN). lo is down in it: what is loaded there counts nothing.
    """
    outcome: list[T] = []
    raised: list[BaseException] = []

    def body() -> None:
        try:
            leave_for_scratch()
            outcome.append(fn(*args, **kwargs))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body, name="nft-scratch")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return outcome[0]
