"""Whether each pod is ours, judged once for each version of it: all pods of a node are gone through with every change
of one, two hundred times a second while twenty come and go."""

from collections.abc import Collection
from dataclasses import dataclass

from agent.kube.watch import Name
from agent.pods import Pairs
from agent.pods.selection import Selection, left_out, unselectable
from agent.sources.kube_pod import NodePod


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of `pod`, in a namespace with `marks`. `never`: why it cannot be ours at all; `reason`: why it is left out. Empty
    for neither."""

    pod: NodePod
    marks: Pairs
    never: str
    reason: str


class Judgements:
    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._known: dict[Name, Judgement] = {}

    def of(self, name: Name, pod: NodePod, marks: Pairs) -> Judgement:
        known = self._known.get(name)
        if known is not None and known.pod is pod and known.marks is marks:
            return known
        candidate = pod.candidate
        never = "has finished" if pod.over else unselectable(candidate, self._selection)
        reason = "" if never else left_out(candidate, marks, self._selection)
        judged = self._known[name] = Judgement(pod, marks, never, reason)
        return judged

    def keep_only(self, names: Collection[Name]) -> None:
        """Forgets those of others; cheap while there are not many."""
        if len(self._known) > 2 * len(names):
            self._known = {name: judged for name, judged in self._known.items() if name in names}
