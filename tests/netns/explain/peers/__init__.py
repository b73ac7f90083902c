"""What the peers, kube-proxy, CNI plugins, Docker and a user put into a namespace, written from their documentation;
and what becomes of packets there, in words that nobody derived from the rules.

`everyone.PEERS` is also what the property suite draws tables from.
"""

from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from agent.explain.outcome import Explanation, Fate, Outcome
from agent.explain.packet import FIN, SYN, TCP, UDP, ConntrackState, Packet, Sender, Way
from tests.netns.explain.oracle import Link

HERE: Final = Path(__file__).parent
LINKS: Final = (
    Link("eth0", ("10.0.0.5/24", "fd00::5/64")),
    Link("net1", ("10.9.0.5/24", "fd09::5/64")),
    Link("cni0", ("10.244.0.1/24", "fd44::1/64")),
    Link("docker0", ("172.17.0.1/16",)),
    Link("br-web", ("172.18.0.1/16",)),
    Link("br0", ("172.16.0.1/24",)),
)
LISTENERS: Final = ((TCP, 15001), (TCP, 15006), (TCP, 15053), (UDP, 15053), (TCP, 4140), (TCP, 4143))
NUMBERS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58, "sctp": 132}
_SIX: Final = (
    ("127.0.0.1", "::1"),
    ("10.0.0.", "fd00::"),
    ("10.9.0.", "fd09::"),
    ("10.1.0.", "fd01::"),
    ("10.2.0.", "fd02::"),
    ("169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
    ("8.8.8.8", "2001:4860::8888"),
)
"""An address of IPv4 here, and who has its place in IPv6."""


@dataclass(frozen=True, slots=True)
class Case:
    """`becomes`: `accept`, `drop`, `reject`, `redirect :15001`, `tproxy :15006`, `dnat 10.244.0.7:8080`; with ` or `
    between where chance decides. `unsure`: why it is enough that this is one of several that are said."""

    what: str
    packet: Packet
    becomes: str
    unsure: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """`files`: what each tool restores (ip6tables: of the same name). `routes`: what it has ip(8) add besides."""

    name: str
    files: tuple[str, ...]
    cases: tuple[Case, ...]
    routes: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """(what reads it: nft, iptables or ip6tables; text)."""
        return tuple((name.rpartition(".")[2], (HERE / name).read_text()) for name in self.files)


# ── Packets ────────────────────────────────────────────────────────────────────────────────────────────────────────
def out(
    to: str,
    *,
    uid: int = 1000,
    gid: int = 1000,
    mark: int = 0,
    proto: str = "tcp",
    source: str = "",
    state: ConntrackState = ConntrackState.NEW,
) -> Packet:
    """Sent by a process of the namespace. `to`, `source`: `ADDRESS` or `ADDRESS PORT`."""
    return _packet(Way.OUTBOUND, to, source, proto, Sender(uid, gid), None, mark, state)


def into(
    to: str,
    *,
    source: str = "10.0.0.9",
    iface: str = "eth0",
    proto: str = "tcp",
    state: ConntrackState = ConntrackState.NEW,
) -> Packet:
    """Arriving from outside."""
    return _packet(Way.INBOUND, to, source, proto, None, iface, 0, state)


def _packet(
    way: Way,
    to: str,
    source: str,
    proto: str,
    sender: Sender | None,
    iface: str | None,
    mark: int,
    state: ConntrackState,
) -> Packet:
    address, _, port = to.partition(" ")
    source_address, _, source_port = source.partition(" ")
    has_ports = proto in ("tcp", "udp", "sctp")
    return Packet(
        way,
        NUMBERS[proto],
        ip_address(address),
        int(port) if has_ports else None,
        ip_address(source_address) if source else None,
        int(source_port) if source_port else None,
        sender,
        iface,
        mark,
        state,
        SYN | FIN if state is ConntrackState.INVALID else SYN,
        icmp_type=None if has_ports else (128 if proto == "icmp6" else 8),
        icmp_code=None if has_ports else 0,
    )


def of_ipv6(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """The same of IPv6; without those whose addresses have no like."""
    six = ((case, packet6(case.packet)) for case in cases)
    return tuple(replace(case, packet=packet) for case, packet in six if packet is not None)


def packet6(packet: Packet) -> Packet | None:
    destination = _address6(str(packet.destination))
    source = _address6(str(packet.source)) if packet.source else None
    if destination is None or (packet.source and source is None):
        return None
    is_echo = packet.protocol == NUMBERS["icmp"]
    return replace(
        packet,
        destination=ip_address(destination),
        source=ip_address(source) if source else None,
        protocol=NUMBERS["icmp6"] if is_echo else packet.protocol,
        icmp_type=128 if is_echo else packet.icmp_type,
    )


def _address6(address: str) -> str | None:
    for four, six in _SIX:
        if address.startswith(four):
            return six + address.removeprefix(four)
    return None


# ── What became of it ──────────────────────────────────────────────────────────────────────────────────────────────
def told(explanation: Explanation) -> str:
    """In the words of `Case.becomes`."""
    if explanation.outcome.fate is not Fate.UNKNOWN:
        return _told(explanation.outcome)
    return " or ".join(sorted({_told(outcome) for outcome, _ in explanation.either}))


def is_as_expected(case: Case, explanation: Explanation) -> bool:
    said = told(explanation)
    return said == case.becomes or (case.unsure != "" and case.becomes in said.split(" or "))


def _told(outcome: Outcome) -> str:
    port = "" if outcome.port is None else f":{outcome.port}"
    match outcome.fate:
        case Fate.REDIRECT | Fate.TPROXY:
            return f"{outcome.fate.value} {port}"
        case Fate.DNAT:
            return f"dnat {outcome.address or ''}{port}"
    return outcome.fate.value
