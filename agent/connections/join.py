"""Sockets, conntrack's flows and the proxy's table, joined into connections. Pure.

The proxy's word comes first, for it alone knows both halves; then conntrack's translations, which show what was led to
a proxy that does not tell; then sockets that face each other here; what is left has one end here and goes direct.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.connections.values import LISTENERS, Connection, End, Path, Process, ProxyConnection, Reason, Way, reverse
from agent.kernel.flow_table import Flow
from agent.kernel.socket_table import HeldSocket
from agent.plan import FlowKey
from agent.pods import IPAddress
from proxy.api.constants import MARK_MASK, PROXY_MARK, PROXY_PORTS

TCP: Final = 6

QUEUED: Final = "it waits in the listener's queue: its proxy has not taken it yet"
CUT: Final = "its proxy's end is closed: what it sends next is reset"
_UNTAKEN: Final = frozenset({"syn-recv", "established", "close-wait"})
"""Without a descriptor in one of these, a socket is nobody's yet; in others it is nobody's any more."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What was read of one namespace. `owners`: by inode. `addresses`: the namespace's. `now_s`: time of day, for
    conntrack's."""

    tcp: tuple[HeldSocket, ...] = ()
    udp: tuple[HeldSocket, ...] = ()
    flows: tuple[Flow, ...] = ()
    proxys: tuple[ProxyConnection, ...] = ()
    owners: Mapping[int, Process] = field(default_factory=dict)
    addresses: frozenset[IPAddress] = frozenset()
    now_s: float = 0.0


def join_tcp(sources: Sources) -> list[Connection]:
    """In no order. Of those that go direct the reason is still to be found, unless they are local."""
    joining = _Joining(sources)
    joining.tell_proxys()
    joining.tell_led()
    joining.tell_proxys_own()
    joining.tell_local()
    joining.tell_direct()
    return joining.told


class _Joining:
    def __init__(self, sources: Sources) -> None:
        self._owners = sources.owners
        self._proxys = sources.proxys
        self._addresses = sources.addresses
        self._now_s = sources.now_s
        self._by_key = {held.key: held for held in sources.tcp if held.remote is not None}
        self._listening = [held for held in sources.tcp if held.remote is None]
        self._serving = frozenset(held.local_port for held in self._listening)
        self._flows = [flow for flow in sources.flows if flow.protocol == TCP]
        self._opened = {flow.opener: flow for flow in self._flows}
        self._by_answerer = {flow.answerer: flow for flow in self._flows}
        # The proxy's own are in a zone of theirs, and may have the same opener as their client's.
        self._zoned = {flow.opener: flow for flow in self._flows if flow.zone}
        self._proxy_pids: set[int] = set()
        self._left = dict(self._by_key)
        self.told: list[Connection] = []

    # ── What the proxy tells ───────────────────────────────────────────────────────────────────────────────────────
    def tell_proxys(self) -> None:
        for one in self._proxys:
            client = one.downstream_key
            if client is not None:
                if client in self._by_key:  # else it is younger than the reading of the sockets, or has ended
                    self._tell_served(one, client)
            elif one.upstream_key in self._by_key:
                self._tell_idle(one, one.upstream_key)

    def _tell_served(self, one: ProxyConnection, client: FlowKey) -> None:
        assert one.client is not None
        opener = self._opener_of(client) or (*one.client, *one.original)
        server = self._server_of(one)
        if one.way is Way.OUTBOUND:
            source, destination = self._end(opener), End(*one.original)
            held = self._by_key.get(opener)
        else:
            source = End(*one.client)
            held = None if server is None else self._by_key.get(server)
            destination = self._served_by(*one.original) if held is None else self._end_of(held)
        state = (held or self._by_key[client]).state
        self._use(client, opener, one.upstream_key, server)
        self.told.append(
            Connection(
                "tcp",
                one.way,
                source,
                destination,
                one.path,
                state,
                listener=client[1],
                service=one.service,
                route=one.route,
                workload=one.workload,
                upstream_from=one.upstream_from,
                upstream=one.upstream,
                age_s=one.age_s,
                worker=one.worker,
            )
        )

    def _tell_idle(self, one: ProxyConnection, key: FlowKey) -> None:
        server = self._server_of(one)
        held = None if server is None else self._by_key.get(server)
        destination = End(*key[2:]) if held is None else self._end_of(held)
        self._use(key, server)
        self.told.append(
            Connection(
                "tcp",
                one.way,
                self._end(key),
                destination,
                Path.IDLE,
                self._by_key[key].state,
                service=one.service,
                workload=one.workload,
                upstream_from=one.upstream_from,
                upstream=one.upstream,
                age_s=one.age_s,
                worker=one.worker,
            )
        )

    def _opener_of(self, answerer: FlowKey) -> FlowKey | None:
        flow = self._by_answerer.get(answerer)
        return None if flow is None else flow.opener

    def _server_of(self, one: ProxyConnection) -> FlowKey | None:
        """The socket here that the proxy's upstream one leads to, if there is one."""
        key = one.upstream_key
        if key is None:
            return None
        flow = self._zoned.get(key)
        server = reverse(key) if flow is None else flow.answerer
        return server if server in self._by_key else None

    # ── What conntrack tells ───────────────────────────────────────────────────────────────────────────────────────
    def tell_led(self) -> None:
        """To a port of this namespace: redirected, or translated to somebody who listens here."""
        for flow in self._flows:
            here = flow.answerer[0].is_loopback or flow.answerer[0] in self._addresses
            if not flow.translated or not here:
                continue
            mine, theirs = self._left.get(flow.answerer), self._left.get(flow.opener)
            if mine is None and (theirs is None or flow.answerer in self._by_key):
                continue
            self._use(flow.answerer, flow.opener)
            if mine is not None and mine.local_port in LISTENERS:  # not any server that somebody redirects to
                self._note_proxy(mine)
            self.told.append(self._led(flow, mine, theirs))

    def _note_proxy(self, held: HeldSocket) -> None:
        owner = self._owners.get(held.inode)
        if owner is not None:
            self._proxy_pids.add(owner.pid)

    def _led(self, flow: Flow, mine: HeldSocket | None, theirs: HeldSocket | None) -> Connection:
        way = Way.OUTBOUND if theirs is not None or flow.opener[0] in self._addresses else Way.INBOUND
        why = CUT if mine is None else "" if mine.inode else QUEUED if mine.state in _UNTAKEN else CUT
        held = theirs or mine
        assert held is not None
        return Connection(
            "tcp",
            way,
            self._end(flow.opener),
            End(*flow.opener[2:]),
            Path.REDIRECT,
            held.state,
            listener=flow.answerer[1],
            why=why,
            age_s=self._age_s(flow),
            at_least_s=self._at_least_s(mine, theirs),
        )

    # ── What is left ───────────────────────────────────────────────────────────────────────────────────────────────
    def tell_proxys_own(self) -> None:
        """Towards servers, of a proxy that does not tell: known by its mark, its ports, or its process."""
        for key, held in tuple(self._left.items()):
            if key in self._left and self._is_proxys(held):
                server = self._answerer_of(key)
                there = self._left.get(server)
                self._use(key, server)
                opened_here = key[1] not in self._serving
                ends = self._end_of(held), End(*key[2:]) if there is None else self._end_of(there)
                source, destination = ends if opened_here else (ends[1], ends[0])
                way = Way.INBOUND if there is not None or not opened_here else Way.OUTBOUND
                self.told.append(
                    Connection(
                        "tcp",
                        way,
                        source,
                        destination,
                        Path.PROXY,
                        held.state,
                        age_s=self._age_s(self._opened.get(key)),
                        at_least_s=self._at_least_s(held, there),
                    )
                )

    def _is_proxys(self, held: HeldSocket) -> bool:
        if held.mark is not None and held.mark & MARK_MASK == PROXY_MARK:
            return True
        owner = self._owners.get(held.inode)
        return (owner is not None and owner.pid in self._proxy_pids) or held.local_port in PROXY_PORTS

    def tell_local(self) -> None:
        for key, held in tuple(self._left.items()):
            other = self._left.get(self._answerer_of(key))
            if key not in self._left or other is None or other is held:
                continue
            opener, answerer = (held, other) if self._is_opener(key) else (other, held)
            self._use(opener.key, answerer.key)
            age_s, at_least_s = self._age_s(self._opened.get(opener.key)), self._at_least_s(held, other)
            self.told.append(
                Connection(
                    "tcp",
                    Way.LOCAL,
                    self._end_of(opener),
                    self._end_of(answerer),
                    Path.DIRECT,
                    opener.state,
                    reason=Reason.LOOPBACK,
                    age_s=age_s,
                    at_least_s=at_least_s,
                )
            )

    def tell_direct(self) -> None:
        for key, held in self._left.items():
            here, there = self._end_of(held), End(*key[2:])
            flow = self._opened.get(key) or self._opened.get(reverse(key)) or self._by_answerer.get(key)
            outbound = self._is_opener(key)
            translated = flow if flow is not None and flow.translated and flow.opener == key else None
            self.told.append(
                Connection(
                    "tcp",
                    Way.OUTBOUND if outbound else Way.INBOUND,
                    here if outbound else there,
                    there if outbound else here,
                    Path.DIRECT,
                    held.state,
                    upstream=None if translated is None else translated.answerer[:2],
                    age_s=self._age_s(flow),
                    at_least_s=held.at_least_s,
                )
            )
        self._left.clear()

    # ── Pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _answerer_of(self, key: FlowKey) -> FlowKey:
        flow = self._zoned.get(key) or self._opened.get(key)
        return reverse(key) if flow is None else flow.answerer

    def _is_opener(self, key: FlowKey) -> bool:
        """By conntrack; where that does not know it, by who listens."""
        if key in self._opened or reverse(key) in self._opened or key in self._by_answerer:
            return key in self._opened
        return key[1] not in self._serving

    def _use(self, *keys: FlowKey | None) -> None:
        for key in keys:
            if key is not None:
                self._left.pop(key, None)

    def _end(self, key: FlowKey) -> End:
        held = self._by_key.get(key)
        return End(key[0], key[1]) if held is None else self._end_of(held)

    def _served_by(self, address: IPAddress, port: int) -> End:
        """Between two requests nobody holds the other half: who listens there will."""
        for held in self._listening:
            if held.local_port == port and (held.local == address or held.local.is_unspecified):
                return End(address, port, self._owners.get(held.inode), held.uid)
        return End(address, port)

    def _end_of(self, held: HeldSocket) -> End:
        return End(held.local, held.local_port, self._owners.get(held.inode), held.uid)

    def _age_s(self, flow: Flow | None) -> float | None:
        return None if flow is None or flow.since_s is None else max(0.0, self._now_s - flow.since_s)

    @staticmethod
    def _at_least_s(*sockets: HeldSocket | None) -> float | None:
        known = [held.at_least_s for held in sockets if held is not None and held.at_least_s is not None]
        return max(known, default=None)
