"""UDP: conntrack's flows with their translation, and connected sockets that it does not know. Pure."""

from collections.abc import Iterator

from agent.connections.join import TCP, Sources
from agent.connections.values import Connection, End, Path, Reason, Way
from agent.kernel.flow_table import Flow
from agent.kernel.socket_table import HeldSocket
from agent.plan import FlowKey
from agent.pods import IPAddress


def join_udp(sources: Sources) -> list[Connection]:
    """In no order."""
    here = _Here(sources)
    flows = [flow for flow in sources.flows if flow.protocol != TCP]
    known = {key for flow in flows for key in (flow.opener, flow.answerer)}
    return [*(_flow(flow, here, sources.now_s) for flow in flows), *_unknown(sources.udp, known, here)]


class _Here:
    def __init__(self, sources: Sources) -> None:
        self._addresses = sources.addresses
        self._owners = sources.owners
        self._bound = {(held.local, held.local_port): held for held in sources.udp}
        self._anywhere = {held.local_port: held for held in sources.udp if held.local.is_unspecified}

    def has(self, address: IPAddress) -> bool:
        return address.is_loopback or address in self._addresses

    def end(self, address: IPAddress, port: int) -> End:
        if not self.has(address):
            return End(address, port)
        held = self._bound.get((address, port)) or self._anywhere.get(port)
        return End(address, port) if held is None else End(address, port, self._owners.get(held.inode), held.uid)


def _flow(flow: Flow, here: _Here, now_s: float) -> Connection:
    opened_here = here.has(flow.opener[0])
    led = flow.translated and here.has(flow.answerer[0])
    way = Way.LOCAL if opened_here and here.has(flow.opener[2]) else Way.OUTBOUND if opened_here else Way.INBOUND
    return Connection(
        "udp",
        way,
        here.end(*flow.opener[:2]),
        here.end(*flow.opener[2:]),
        Path.REDIRECT if led else Path.DIRECT,
        "answered" if flow.answered else "unanswered",
        listener=flow.answerer[1] if led else None,
        reason=None if led else Reason.UDP,
        upstream=flow.answerer[:2] if flow.translated and not led else None,
        age_s=None if flow.since_s is None else max(0.0, now_s - flow.since_s),
    )


def _unknown(sockets: tuple[HeldSocket, ...], known: set[FlowKey], here: _Here) -> Iterator[Connection]:
    for held in sockets:
        if held.remote is not None and held.key not in known:
            source, there = here.end(held.local, held.local_port), End(held.remote, held.remote_port)
            way = Way.LOCAL if here.has(held.remote) else Way.OUTBOUND
            yield Connection("udp", way, source, there, Path.DIRECT, held.state, reason=Reason.UDP)
