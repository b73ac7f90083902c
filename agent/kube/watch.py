"""One resource of the API server, known and kept up to date: list, then watch, for ever (client-go's reflector).

What was listed once stays in force whatever the server does: it may be away for hours, answer slowly, or with a state
older than the one already told; only a complete newer list takes anything away.
"""

import codecs
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from agent.kube.backoff import LONGEST_S, STEADY_S, Backoff
from agent.kube.client import ANSWER_TIMEOUT_S, ApiClient
from agent.kube.errors import ApiRefused, CannotReach
from agent.kube.list_items import ListItems, NoList
from agent.kube.resources import ALL, Resource, Selection
from agent.kube.watch_events import WatchEvent, WatchLines, What
from agent.printable import printable

_log: Final = logging.getLogger("headgate.kube")

T = TypeVar("T")

PAGE: Final = 500
"""client-go tools/pager: the default page of a list."""
WATCH_S: Final = 300
"""client-go asks for 5 to 10 minutes, at random: watches spread over the servers (reflector.go: minWatchTimeout)."""
_SHORT_S: Final = 1.0
"""A watch that ends sooner and said nothing is a fault, not the server's time-out (the same place)."""
_LATE_S: Final = 30.0
"""A server that does not end a watch it was asked to end is not there any more."""
ABSENT_S: Final = 60.0
"""How often a kind that the server has not is asked for: a CRD may come at any time. And how long one that was there
must be away to be believed: a server that has just begun may not know its CRDs yet (before 1.23, which has
apiserver/pkg/server/config.go: MuxAndDiscoveryComplete), and to forget AuthorizationPolicies opens what they close."""
FROM_CACHE: Final = "0"
"""resourceVersion of a first list: whatever a server's cache has; a thousand nodes' lists must not all reach etcd."""
_NEWEST: Final = ""
_NOT_AS_ASKED: Final = (400, 422)
"""A version that this server cannot read: another one gave it, or lied."""


class Name(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Hearing(Generic[T]):
    """Who is told. `take` makes of a body what is kept of it, None for nothing: at once, for most of it is of no use
    here. `listed` is all there is; what it does not name is gone."""

    take: Callable[[dict[str, Any]], T | None]
    listed: Callable[[Mapping[Name, T]], None]
    seen: Callable[[Name, T | None], None]  # None: gone, or nothing of use in it


@dataclass(frozen=True, slots=True)
class Pace:
    """Time and chance, injected. `sleep(seconds)`; `chance()` in [0, 1)."""

    sleep: Callable[[float], Awaitable[None]]
    chance: Callable[[], float]
    now_s: Callable[[], float]


class Watch(Generic[T]):
    """`run` never returns. `problem`: what keeps it from being up to date, empty for nothing. `complete`: everything
    was told at least once."""

    def __init__(
        self, client: ApiClient, resource: Resource, hearing: Hearing[T], pace: Pace, selection: Selection = ALL
    ) -> None:
        self._client = client
        self._resource = resource
        self._hearing = hearing
        self._pace = pace
        self._selection = selection
        self._served = ""  # the API version in use; empty: still to be found out
        self._version = ""  # resourceVersion up to which everything was told; empty: nothing was
        self._list_from = FROM_CACHE
        self._must_list = True
        self._followed_since_s: float | None = None  # while a watch is open
        self._absent_since_s: float | None = None
        self.problem = ""
        self.complete = False

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            began_s = self._pace.now_s()
            wanted_s = None
            try:
                await self._round()
                trouble = ""
            except ApiRefused as error:
                trouble, wanted_s = self._refused(error), error.retry_after_s
            except (CannotReach, ValueError) as error:  # InvalidAccess, NoList, NoEvent, what is no UTF-8
                trouble = f"{self._resource}: {error}"
            except Exception as error:  # a fault of ours, or what no server sends: the other kinds go on
                _log.exception("%s: the watch failed", self._resource)
                trouble = f"{self._resource}: a fault of the agent: {printable(repr(error), 200)}"
            self._say(trouble)
            if self._was_steady(began_s):
                backoff = Backoff()
            if trouble:
                backoff = backoff.failed()
                await self._pace.sleep(backoff.delay_s(self._pace.chance(), wanted_s))

    def _was_steady(self, began_s: float) -> bool:
        """A watch that is cut each minute, by whatever is between, is asked for again at once (client-go does not wait
        for that at all)."""
        now_s, followed_s = self._pace.now_s(), self._followed_since_s
        self._followed_since_s = None
        return now_s - began_s > STEADY_S or (followed_s is not None and now_s - followed_s > LONGEST_S)

    async def _round(self) -> None:
        """Up to the end of one watch."""
        if not self._served and not await self._is_served():
            self._absent()
            self._say("")
            await self._pace.sleep(ABSENT_S * (1 + self._pace.chance()))
            return
        self._absent_since_s = None
        if self._must_list:
            await self._list()
        self._say("")
        await self._follow()

    def _absent(self) -> None:
        """Raises CannotReach while it is not believed."""
        if self.complete and not self._version:
            return
        if self.complete:
            now_s = self._pace.now_s()
            since_s = self._absent_since_s = now_s if self._absent_since_s is None else self._absent_since_s
            if now_s - since_s < ABSENT_S:
                raise CannotReach(f"the server has not the kind any more; believed after {ABSENT_S:g} s")
        self._version, self._list_from, self._absent_since_s = "", FROM_CACHE, None
        self.complete = True
        self._hearing.listed({})

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.warning("%s; what is known of it stays in force", problem)
        elif self.problem and not problem:
            _log.info("%s: up to date again", self._resource)
        self.problem = problem

    def _refused(self, error: ApiRefused) -> str:
        if error.is_gone or error.is_too_new or error.status in _NOT_AS_ASKED:
            self._must_list, self._list_from = True, _NEWEST
        elif error.status == 404:
            self._served, self._must_list = "", True
        if error.status in (401, 403):
            verb = "list" if self._must_list else "watch"
            return f"{self._resource}: may not {verb} them: {error}; the ClusterRole must permit get, list and watch"
        return f"{self._resource}: {error}"

    async def _is_served(self) -> bool:
        """Core kinds always are. Which version of a group: the server's list, ours in order."""
        resource = self._resource
        if not resource.group:
            self._served = resource.versions[0]
            return True
        try:
            group = await self._client.get(f"/apis/{resource.group}")
            offered = [str(version["version"]) for version in group["versions"]]
            for version in (one for one in resource.versions if one in offered):
                there = await self._client.get(f"/apis/{resource.group}/{version}")
                if any(one.get("name") == resource.plural for one in there["resources"]):
                    self._served = version
                    return True
        except ApiRefused as error:
            if error.status != 404:
                raise
        except (KeyError, TypeError, AttributeError) as error:
            raise CannotReach(f"{resource}: what the server says of the group is no discovery document") from error
        return False

    # ── List ───────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _list(self) -> None:
        found: dict[Name, T] = {}
        asked, more = self._list_from, ""
        while True:
            page = await self._page(asked, more, found)
            if not more:
                self._refuse_stale(asked, page.version)
            if not page.more:
                break
            more = page.more
        # Complete, and not older than what was told: only now it replaces that.
        self._version, self._must_list, self._list_from = page.version, False, page.version
        self._hearing.listed(found)
        self.complete = True

    async def _page(self, asked: str, more: str, found: dict[Name, T]) -> ListItems:
        parameters = {**self._selection.parameters(), "limit": str(PAGE)}
        if more:
            parameters["continue"] = more
        elif asked:
            parameters |= {"resourceVersion": asked, "resourceVersionMatch": "NotOlderThan"}
        page = ListItems()
        async with self._client.streaming(self._path(), parameters, ANSWER_TIMEOUT_S) as content:
            decoder = codecs.getincrementaldecoder("utf-8")()
            async for data in content.iter_any():
                for body in page.feed(decoder.decode(data)):
                    self._take(body, found)
        if not page.done:
            raise NoList(f"{self._resource}: the list was cut short")
        if not page.version:
            raise NoList(f"{self._resource}: a list without a resourceVersion")
        return page

    def _take(self, body: dict[str, Any], found: dict[Name, T]) -> None:
        # A list says kind and version once, for all its items.
        body = {"apiVersion": self._resource.api_version(self._served), "kind": self._resource.kind, **body}
        name = _name(body)
        kept = None if name is None else self._hearing.take(body)
        if name is not None and kept is not None:
            found[name] = kept

    def _refuse_stale(self, asked: str, version: str) -> None:
        """A server whose cache lags behind the one that was asked before. The newest is always believed: after a
        restore of etcd the versions begin lower."""
        if asked != _NEWEST and self._version and _is_older(version, self._version):
            self._list_from = _NEWEST
            raise CannotReach(f"a list of version {printable(version)}, and {self._version} was told already")

    # ── Watch ──────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _follow(self) -> None:
        asked_s = int(WATCH_S * (1 + self._pace.chance()))
        parameters = {
            **self._selection.parameters(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(asked_s),
        }
        lines, began_s, heard = WatchLines(), self._pace.now_s(), False
        async with self._client.streaming(self._path(), parameters, asked_s + _LATE_S) as content:
            self._followed_since_s = began_s
            async for data in content.iter_any():
                for event in lines.feed(data):
                    self._heard(event)
                    heard = True
        if not heard and self._pace.now_s() - began_s < _SHORT_S:
            raise CannotReach("the watch was ended at once")

    def _heard(self, event: WatchEvent) -> None:
        name = None if event.what is What.BOOKMARK else _name(event.body)
        if name is not None:
            kept = None if event.what is What.DELETED else self._hearing.take(event.body)
            self._hearing.seen(name, kept)
        # After it was told: a watch that is begun anew must not skip it.
        self._version = self._list_from = event.version

    def _path(self) -> str:
        return self._resource.path(self._served, self._selection.namespace)


def _name(body: dict[str, Any]) -> Name | None:
    """None for what has no name: no API server sends that, and nobody could ask for it."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or ""
    return Name(namespace, name) if isinstance(name, str) and name and isinstance(namespace, str) else None


def _is_older(version: str, than: str) -> bool:
    """Versions are ordered numbers where they are numbers (Kubernetes 1.35 promises it, all before had it)."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
