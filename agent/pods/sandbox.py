"""Where a pod's network namespace is."""

from dataclasses import dataclass

from agent.pods.pod import NetnsId


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's namespace, and a path to it: a mount's if there is one, which lives as long as the namespace has a name;
    else a process', which may end."""

    netns_path: str
    netns_id: NetnsId
