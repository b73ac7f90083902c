"""What a source tells of pods."""

from dataclasses import dataclass

from agent.pods import NetnsId, PodRef


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod is there, in the namespace `netns_id` that `netns_path` named when the source looked."""

    pod: PodRef
    netns_path: str
    netns_id: NetnsId


@dataclass(frozen=True, slots=True)
class PodChanged:
    """A pod that was seen has other labels, annotations or addresses, or another namespace."""

    pod: PodRef
    netns_path: str
    netns_id: NetnsId


@dataclass(frozen=True, slots=True)
class PodGone:
    """The pod is no longer there, or its namespace is not."""

    uid: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A pod that its source knows and does not tell of, and why."""

    namespace: str
    name: str
    reason: str


SourceEvent = PodSeen | PodChanged | PodGone
