"""How a proxy stands in the pods that it serves: what it may do there, and whom an application sees calling.

A node's proxy enters namespaces, marks its sockets and speaks with its clients' addresses. A sidecar lives in its one
pod, often without any capability: the rules know it by its user then, and it calls the application from an address that
they let pass.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from proxy.api.constants import PASSTHROUGH4, PASSTHROUGH6


class CallFrom(Enum):
    """With which address an application is called."""

    CLIENT = "client"  # the caller's own: transparent
    PASSTHROUGH = "passthrough"  # 127.0.0.6 or ::6
    POD = "pod"  # whichever the kernel chooses


@dataclass(frozen=True, slots=True)
class Standing:
    """`own_netns`: it serves the namespace that it lives in. `marks`: every socket carries PROXY_MARK; else only those
    that are transparent do, since their answers are known by it."""

    own_netns: bool = False
    marks: bool = True
    from4: CallFrom = CallFrom.CLIENT
    from6: CallFrom = CallFrom.CLIENT

    def source(self, client: str, application: str) -> str | None:
        """The address to call an application from for this client; None: the kernel's choice.

        A client with the application's own address may be the pod through a Service, or, where the kernel's choice is
        used, this proxy itself, led back by the rules: it gets the passthrough address, which is no loop, and which the
        kernel refuses (EADDRNOTAVAIL) where it is not there.
        """
        way = self.from6 if ":" in application else self.from4
        if way is CallFrom.CLIENT:
            # The pod's own address needs no transparency, unless the mark comes with it.
            return None if self.marks and client == application else client
        if way is CallFrom.POD and client != application:
            return None
        return PASSTHROUGH6 if ":" in application else PASSTHROUGH4

    def transparent(self, ipv6: bool) -> bool:
        """Whether `source` may be an address that is not this host's."""
        return (self.from6 if ipv6 else self.from4) is CallFrom.CLIENT

    def words(self) -> str:
        """For a worker's command line; `parse` reads it."""
        return f"{'own' if self.own_netns else 'any'},{int(self.marks)},{self.from4.value},{self.from6.value}"


NODE: Final = Standing()
"""A node's proxy: root in its own namespace, guest in all others."""


def parse(words: str) -> Standing:
    """What `Standing.words` said. Raises ValueError."""
    netns, marks, from4, from6 = words.split(",")
    return Standing(netns == "own", marks == "1", CallFrom(from4), CallFrom(from6))
