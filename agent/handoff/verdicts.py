"""What proxies of this node have decided on objects whose kind has a status for that."""

from collections.abc import Callable
from typing import Final

from proxy.api.stream import JUDGED_GROUP, ObjectName, Verdict

MAX_KEPT: Final = 10_000
"""Routes of a large cluster; a proxy that makes names up fills no more than 10 MB."""


class Verdicts:
    """The latest of each object, whichever proxy's: while one takes over from the other, both judge the same."""

    def __init__(self) -> None:
        self._latest: dict[ObjectName, Verdict] = {}

    def heard(self, verdict: Verdict) -> None:
        if verdict.name.group != JUDGED_GROUP:
            return
        self._latest.pop(verdict.name, None)
        self._latest[verdict.name] = verdict
        if len(self._latest) > MAX_KEPT:
            del self._latest[next(iter(self._latest))]

    def of(self, name: ObjectName) -> Verdict | None:
        return self._latest.get(name)

    def keep_only(self, is_there: Callable[[ObjectName], bool]) -> None:
        """What was decided on objects that are gone is of no use."""
        self._latest = {name: verdict for name, verdict in self._latest.items() if is_there(name)}
