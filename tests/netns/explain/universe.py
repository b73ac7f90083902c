"""Few addresses, ports, users and marks, so that rules and packets drawn from them meet."""

from ipaddress import ip_address
from random import Random
from typing import Final

from agent.explain.packet import (
    ACK,
    FIN,
    ICMP,
    ICMP6,
    SCTP,
    SYN,
    TCP,
    UDP,
    ConntrackState,
    Packet,
    Sender,
    Way,
)
from agent.pods import IPAddress

PORTS: Final = (53, 80, 443, 3000, 8080, 9090, 15001, 15006, 15008)
UIDS: Final = (0, 1000, 1337, 2000)
MARKS: Final = (0, 0, 0, 0x111, 0x539, 0x400, 1)
LISTENERS: Final = (*((TCP, port) for port in (80, 4143, 15001, 15006, 15008)), (UDP, 15053), (UDP, 15001))

POD: Final = {4: "10.0.0.5", 6: "fd00::5"}
OTHER: Final = {4: "10.9.0.5", 6: "fd09::5"}
LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
NEIGHBOURS: Final = {4: ("10.0.0.9", "10.0.0.77"), 6: ("fd00::9", "fd00::77")}
BEHIND: Final = {4: ("10.9.0.9", "10.9.0.77"), 6: ("fd09::9", "fd09::77")}
"""On net1."""
FAR: Final = {
    4: ("10.1.2.3", "10.1.9.9", "10.2.0.1", "172.17.0.2"),
    6: ("fd01::2:3", "fd01::9:9", "fd02::1", "fd17::2"),
}
OWN: Final = {version: (POD[version], OTHER[version], LOOPBACK[version]) for version in (4, 6)}
SERVICES: Final = {4: ("10.96.0.1", "10.96.0.10"), 6: ("fd96::1", "fd96::10")}
NETWORKS: Final = {
    4: ("10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/24", "10.96.0.0/12", "127.0.0.0/8", "10.0.0.5/32"),
    6: ("fd00::/8", "fd01::/32", "fd00::/64", "fd96::/16", "::1/128"),
}


def everyone(version: int) -> tuple[str, ...]:
    return (POD[version], OTHER[version], LOOPBACK[version], *FAR[version], *SERVICES[version], *BEHIND[version])


def packet(rng: Random, *, established: bool = True) -> Packet:
    """`established`: whether packets of established connections are drawn, too."""
    version = 4 if rng.random() < 0.6 else 6
    protocol = rng.choices((TCP, UDP, ICMP if version == 4 else ICMP6, SCTP), (88, 7, 3, 2))[0]
    port = rng.choice(PORTS) if protocol in (TCP, UDP, SCTP) else None
    state, flags = ConntrackState.NEW, SYN
    if protocol == TCP:
        drawn = rng.random()
        if drawn < 0.05 and established:
            state, flags = ConntrackState.ESTABLISHED, ACK
        elif drawn < 0.11:
            state, flags = ConntrackState.INVALID, SYN | FIN
        elif drawn < 0.14:
            flags = rng.choice((ACK, ACK | 8))
    elif protocol == UDP and established and rng.random() < 0.08:
        state = ConntrackState.ESTABLISHED
    icmp = ({ICMP: 8, ICMP6: 128}[protocol], 0) if protocol in (ICMP, ICMP6) else (None, None)
    if rng.random() < 0.55:
        return _sent(rng, version, protocol, port, state, flags, icmp)
    return _arriving(rng, version, protocol, port, state, flags, icmp)


def _sent(
    rng: Random,
    version: int,
    protocol: int,
    port: int | None,
    state: ConntrackState,
    flags: int,
    icmp: tuple[int | None, int | None],
) -> Packet:
    pools = (FAR, SERVICES, BEHIND, NEIGHBOURS, OWN)
    destination = rng.choice(rng.choices(pools, (44, 24, 8, 7, 17))[0][version])
    source: IPAddress | None = None
    if rng.random() < 0.2 and not ip_address(destination).is_loopback:
        source = ip_address(rng.choice((POD[version], OTHER[version])))
    uid, gid = rng.choice(UIDS), rng.choice(UIDS)
    return Packet(
        Way.OUTBOUND, protocol, ip_address(destination), port, source, _own_port(rng, port), Sender(uid, gid), None,
        rng.choice(MARKS), state, flags, *icmp,
    )  # fmt: skip


def _own_port(rng: Random, port: int | None) -> int | None:
    """Told, or left to the sender's kernel."""
    return rng.choice((rng.randint(20_000, 59_999), rng.randint(200, 1023))) if port and rng.random() < 0.9 else None


def _arriving(
    rng: Random,
    version: int,
    protocol: int,
    port: int | None,
    state: ConntrackState,
    flags: int,
    icmp: tuple[int | None, int | None],
) -> Packet:
    interface = rng.choices(("eth0", "net1"), (75, 25))[0]
    near = {"eth0": NEIGHBOURS, "net1": BEHIND}[interface]
    source = rng.choice(FAR[version] if interface == "eth0" and rng.random() < 0.6 else near[version])
    own = {"eth0": POD, "net1": OTHER}[interface][version]
    others = (POD[version], OTHER[version], *FAR[version], *SERVICES[version], *BEHIND[version])
    destination = own if rng.random() < 0.7 else rng.choice(others)
    if destination == source:
        destination = own
    return Packet(
        Way.INBOUND, protocol, ip_address(destination), port, ip_address(source), _own_port(rng, port), None,
        interface, 0, state, flags, *icmp,
    )  # fmt: skip
