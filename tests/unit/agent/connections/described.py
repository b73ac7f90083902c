"""A pod's sockets, flows and proxy as a scenario tells them: `10.0.0.5:4000 > 10.0.0.9:80`."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from agent.connections.join import Sources, join_tcp
from agent.connections.values import Connection, Path, Place, Process, ProxyConnection, Way
from agent.kernel.flow_table import Flow
from agent.kernel.socket_table import HeldSocket
from agent.plan import FlowKey
from proxy.api.constants import PROXY_MARK

POD, POD6 = "10.0.0.5", "fd00::5"
COOKIE = 7


def place(text: str) -> Place:
    host, _, port = text.rpartition(":")
    return ip_address(host.strip("[]")), int(port)


def key(text: str) -> FlowKey:
    """Of a socket, as itself sees it."""
    local, _, remote = text.partition(" > ")
    return *place(local), *place(remote)


@dataclass
class Pod:
    """`serves` listens, `holds` is one end, `flow` what conntrack knows of an opener and, if led, of its answerer."""

    sockets: list[HeldSocket] = field(default_factory=list)
    udp: list[HeldSocket] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    proxys: list[ProxyConnection] = field(default_factory=list)
    owners: dict[int, Process] = field(default_factory=dict)
    inode: int = 100

    def _inode(self, command: str | None) -> int:
        if command is None:
            return 0
        self.inode += 1
        pid = next((one.pid for one in self.owners.values() if one.command == command), len(self.owners) + 1)
        self.owners[self.inode] = Process(pid, command)
        return self.inode

    def serves(self, at: str, command: str) -> None:
        address, port = place(at)
        self.sockets.append(HeldSocket(address, port, None, 0, "listen", 0, self._inode(command)))

    def holds(
        self, socket: str, command: str | None = "app", *, proxys: bool = False, state: str = "established"
    ) -> None:
        mark = PROXY_MARK if proxys else 0
        self.sockets.append(HeldSocket(*key(socket), state, 1000, self._inode(command), mark, 5.0))

    def flow(
        self, opener: str, answerer: str = "", *, zone: int = 0, protocol: int = 6, since_s: float | None = None
    ) -> None:
        opened = key(opener)
        answered = key(answerer) if answerer else (*opened[2:], *opened[:2])
        self.flows.append(Flow(protocol, opened, answered, bool(answerer), True, zone, since_s))

    def tells(
        self,
        way: Way,
        path: Path,
        original: str,
        client: str = "",
        listener: str = "",
        upstream: str = "",
        service: str = "web.shop.svc.cluster.local",
    ) -> None:
        """`client` arrives at `listener`; `upstream` is the proxy's other socket."""
        near, far = (None, None) if not upstream else (place(upstream.split(" > ")[0]), place(upstream.split(" > ")[1]))
        one = ProxyConnection("uid", COOKIE, way, path, place(original), upstream_from=near, upstream=far)
        if client:
            one = replace(one, client=place(client), listener=place(listener))
        self.proxys.append(replace(one, service=service, route="default", age_s=3.0, worker=2))

    def sources(self) -> Sources:
        addresses = frozenset(map(ip_address, (POD, POD6, "127.0.0.1", "::1")))
        return Sources(
            tuple(self.sockets), tuple(self.udp), tuple(self.flows), tuple(self.proxys), self.owners, addresses, 1000.0
        )

    def tcp(self) -> list[Connection]:
        return join_tcp(self.sources())

    def only(self) -> Connection:
        (one,) = self.tcp()
        return one


def ends(one: Connection) -> str:
    return f"{one.source.address}:{one.source.port} > {one.destination.address}:{one.destination.port}"


def commands(one: Connection) -> tuple[str | None, ...]:
    return tuple(None if end.process is None else end.process.command for end in (one.source, one.destination))
