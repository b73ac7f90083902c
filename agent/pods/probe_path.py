"""Whether what the node's own processes send, kubelet's probes, reaches a pod and is answered. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.pods.pod import IPAddress


class PathStatus(Enum):
    OPEN = "open"  # it arrives, and the answer comes back
    SHUT = "shut"  # something on the way drops or refuses it, for its source's sake
    ONE_WAY = "one-way"  # it arrives, and the answer does not
    UNKNOWN = "unknown"  # it cannot be told


@dataclass(frozen=True, slots=True)
class ProbePath:
    """To one address of a pod. `reason` and `remedy` in words; empty where nothing is wrong."""

    address: IPAddress
    status: PathStatus
    reason: str = ""
    remedy: str = ""

    @property
    def fails(self) -> bool:
        """kubelet's probes fail there, whatever the application does."""
        return self.status in (PathStatus.SHUT, PathStatus.ONE_WAY)


class Back(Enum):
    """What the pod's routes make of an answer to the source, and of what comes from there."""

    ROUTED = "routed"
    NO_ROUTE = "no route"
    FILTERED = "filtered"  # rp_filter: the way back is another interface's


@dataclass(frozen=True, slots=True)
class Tried:
    """A connection from the source to a port on which nobody listens. `answered`: a refusal, or a handshake, came.
    `arrived`: the pod's own rule has seen it, None where that cannot be counted. `others_answered`: the same from
    another address of the node; asked only where something is wrong."""

    address: IPAddress
    source: IPAddress
    answered: bool
    arrived: bool | None
    others_answered: bool = False
    back: Back = Back.ROUTED


_LET_IN: Final = (
    "let {source} in where it is stopped: a NetworkPolicy of the CNI's own kind, a security group, or the settings of"
    ' the CNI that docs/kubernetes.md, "Probes", names'
)


def judged(tried: Tried) -> ProbePath:
    """That an answer came proves nothing by itself: who rejects for the pod answers in its name. A firewall that drops
    is told from a dead pod by what other addresses of the node meet."""
    source, address = tried.source, tried.address
    if tried.answered and tried.arrived is not False:
        return ProbePath(address, PathStatus.OPEN)
    if tried.arrived:
        return _one_way(tried)
    if tried.answered:
        why = f"what the node's processes send from {source} is refused on the way to {address}"
        return ProbePath(address, PathStatus.SHUT, why, _LET_IN.format(source=source))
    if tried.others_answered:
        why = f"what the node's processes send from {source} is dropped on the way to {address}, or its answer is"
        return ProbePath(address, PathStatus.SHUT, why, _LET_IN.format(source=source))
    return ProbePath(address, PathStatus.UNKNOWN, f"nothing that the node sends to {address} is answered")


def _one_way(tried: Tried) -> ProbePath:
    source, address = tried.source, tried.address
    why, remedy = (
        f"probes reach {address}, and the answers to {source} get lost on the way back",
        (f"look where the node loses what is sent to {source}: a firewall, or a route of its own to there"),
    )
    if tried.back is Back.NO_ROUTE:
        why = f"probes reach {address}, and the pod has no route back to {source}"
        remedy = "give the pod a default route"
    elif tried.back is Back.FILTERED:
        why = f"the pod's rp_filter drops what comes from {source}: its way back leads through another interface"
        remedy = f"in the pod, route {source} through the interface of {address}, or set its rp_filter to 2"
    return ProbePath(address, PathStatus.ONE_WAY, why, remedy)
