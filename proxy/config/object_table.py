"""Objects as a stream tells of them: one at a time, newer versions, departures; and now and then all over again."""

from proxy.api.stream import ObjectGone, ObjectSeen
from proxy.config.admission import decide, rejection_of
from proxy.config.fields import InvalidPolicy, Node
from proxy.config.manifest import raw_object
from proxy.config.objects import Admitted, ObjectKey, ObjectSet
from proxy.model.snapshot import Rejection

SOURCE = "object stream"
MAX_PROBLEMS = 64
"""Objects without a usable name that are listed; the stream's other end names each before it sends it."""


class ObjectTable:
    """Admission is a directory's: a malformed object keeps its last good version."""

    def __init__(self) -> None:
        self._admitted: dict[ObjectKey, Admitted] = {}
        self._named: set[ObjectKey] | None = None
        self._problems: dict[str, Rejection] = {}
        self.complete = False
        """The stream has told everything once since it began last."""

    def begin(self) -> None:
        """The stream begins anew: what it does not name until `finish` is gone then."""
        self._named = set()
        self._problems.clear()
        self.complete = False

    def put(self, seen: ObjectSeen) -> Admitted | None:
        """Never raises: what cannot be understood is in the set's rejections. What was decided on the object; None for
        one that cannot be named, or is none of ours."""
        try:
            raw = raw_object(Node(seen.body, "", "object of the stream"), SOURCE)
        except InvalidPolicy as invalid:
            if len(self._problems) < MAX_PROBLEMS:
                self._problems[str(invalid)] = rejection_of(invalid, SOURCE)
            return None
        if self._named is not None:
            self._named.add(raw.key)
        known = self._admitted.get(raw.key)
        verdict = decide(raw, known)
        if verdict is None:
            return None
        if known is not None and verdict.value == known.value and verdict.rejection == known.rejection:
            # What counts is the same (a pod's status changes every minute): so is the policy that comes of it.
            verdict = Admitted(raw, known.value, known.rejection)
        self._admitted[raw.key] = verdict
        return verdict

    def drop(self, gone: ObjectGone) -> None:
        key = ObjectKey(gone.name.group, gone.name.kind, gone.name.namespace or "default", gone.name.name)
        self._admitted.pop(key, None)
        if self._named is not None:
            self._named.discard(key)

    def finish(self) -> tuple[ObjectKey, ...]:
        """Everything has been told: what was not named is gone, and returned. A second time it says nothing new."""
        gone = () if self._named is None else tuple(key for key in self._admitted if key not in self._named)
        for key in gone:
            del self._admitted[key]
        self._named = None
        self.complete = True
        return gone

    def objects(self) -> ObjectSet:
        """All that is in force now."""
        return ObjectSet(self._admitted.copy(), tuple(self._problems.values()))
