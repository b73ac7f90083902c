"""A pod to explain packets in: eth0 and net1, a policy route for mark 0x111, listeners; and rules in few words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from agent.explain import iptables_text
from agent.explain.interpret import explain
from agent.explain.outcome import Explanation, Passage, Step
from agent.explain.packet import TCP, Packet, Sender, Way
from agent.explain.statements import (
    Constant,
    Decision,
    Elements,
    Field,
    Match,
    Nat,
    NatKind,
    Op,
    Read,
    Set,
    Statement,
    Verdict,
)
from agent.explain.surroundings import Asked, Connection, Ends, NoSocket, Route, RouteKind, Socket
from agent.explain.tables import Base, Chain, ChainType, Hook, Rule, Ruleset, Table, Tool
from agent.pods import IPAddress

_ADDRESSES: Final = {
    "lo": ("127.0.0.1", "::1"),
    "eth0": ("10.0.0.5", "fd00::5", "fe80::5"),
    "net1": ("10.9.0.5", "fd09::5"),
}
_OWN: Final = {ip_address(address): name for name, addresses in _ADDRESSES.items() for address in addresses}


@dataclass(slots=True)
class Pod:
    """Double of the kernel's routes, sockets and addresses. `listening`: port → socket; `routes`: answers that differ
    from what a plain pod's would be; `blind`: it tells nothing."""

    listening: Mapping[int, Socket] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    addressed: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(_ADDRESSES))
    connections: Mapping[tuple[str, int], Connection] = field(default_factory=dict)
    blind: bool = False
    asked: list[Asked] = field(default_factory=list)

    def route(self, asked: Asked, /) -> Route | None:
        self.asked.append(asked)
        if self.blind:
            return None
        if str(asked.destination) in self.routes:
            return self.routes[str(asked.destination)]
        if asked.destination in _OWN or asked.destination.is_loopback:
            return Route(RouteKind.LOCAL, "lo", asked.source or asked.destination, 255)
        if asked.mark & 0xFFF == 0x111:
            return Route(RouteKind.LOCAL, "lo", asked.source, 100)
        name = "net1" if str(asked.destination).startswith(("10.9.", "fd09:")) else "eth0"
        version = asked.destination.version
        return Route(RouteKind.UNICAST, name, ip_address(_ADDRESSES[name][version == 6]), 254)

    def socket(self, ends: Ends, /) -> Socket | NoSocket | None:
        if self.blind:
            return None
        return self.listening.get(ends.destination_port or 0, NoSocket())

    def connection(self, ends: Ends, zone: int, /) -> Connection | None:
        return self.connections.get((f"{ends.destination}:{ends.destination_port}", zone))

    def addresses(self, interface: str, /) -> tuple[IPAddress, ...] | None:
        if self.blind or interface not in self.addressed:
            return None
        return tuple(ip_address(address) for address in self.addressed[interface])


_BUILT_IN: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


# ── Packets ────────────────────────────────────────────────────────────────────────────────────────────────────────
def sent(to: str = "10.1.2.3", port: int | None = 80, **more: object) -> Packet:
    """By user 1000, from port 40000."""
    given: dict[str, object] = {"protocol": TCP, "source_port": 40_000, "sender": Sender(1000, 1000), **more}
    return Packet(Way.OUTBOUND, destination=ip_address(to), destination_port=port, **given)  # type: ignore[arg-type]


def arriving(to: str = "10.0.0.5", port: int | None = 80, by: str = "eth0", **more: object) -> Packet:
    source = ip_address("10.1.2.3" if ip_address(to).version == 4 else "fd01::3")
    given: dict[str, object] = {"protocol": TCP, "source": source, "source_port": 40_000, "interface": by, **more}
    return Packet(Way.INBOUND, destination=ip_address(to), destination_port=port, **given)  # type: ignore[arg-type]


# ── Rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def chain(name: str, base: Base | None, *rules: tuple[Statement, ...], handle: int = 0) -> Chain:
    return Chain(name, tuple(Rule(place, those) for place, those in enumerate(rules, 1)), base, handle)


def filters(hook: Hook, priority: int = 0, *, drops: bool = False) -> Base:
    return Base(ChainType.FILTER, hook, priority, drops)


def nat(hook: Hook, priority: int = -100) -> Base:
    return Base(ChainType.NAT, hook, priority)


def table(
    *chains: Chain, family: str = "inet", name: str = "t", handle: int = 0, sets: Iterable[Elements] = ()
) -> Table:
    named = {one.name: one for one in sets}
    return Table(Tool.NFT, family, name, {one.name: one for one in chains}, named, handle)


def saved(table: str, *rules: str, family: str = "ip", policies: Mapping[str, str] | None = None) -> tuple[Table, ...]:
    """One table as iptables-save prints it; `policies`: other than ACCEPT."""
    heads = [f":{chain} {(policies or {}).get(chain, 'ACCEPT')} [0:0]" for chain in _BUILT_IN]
    own = sorted({rule.split()[1] for rule in rules} - set(_BUILT_IN))
    lines = (f"*{table}", *heads, *(f":{chain} - [0:0]" for chain in own), *rules, "COMMIT")
    return iptables_text.tables("\n".join(lines), Tool.IPTABLES_LEGACY, family)


def equal(what: Field, value: int | str) -> Match:
    return Match(Read(what), Op.EQUAL, Constant(value))


def unequal(what: Field, value: int | str) -> Match:
    return Match(Read(what), Op.UNEQUAL, Constant(value))


def port(number: int) -> Match:
    return equal(Field.TCP_DPORT, number)


def redirect(to: int | None = None) -> Nat:
    return Nat(NatKind.REDIRECT, None, None if to is None else Constant(to))


def dnat(to: str, number: int | None = None) -> Nat:
    return Nat(NatKind.DNAT, Constant(int(ip_address(to))), None if number is None else Constant(number))


def mark(value: int) -> Set:
    return Set(Field.MARK, Constant(value))


def jump(name: str) -> Verdict:
    return Verdict(Decision.JUMP, name)


def goto(name: str) -> Verdict:
    return Verdict(Decision.GOTO, name)


RETURN: Final = Verdict(Decision.RETURN)


# ── Explained ──────────────────────────────────────────────────────────────────────────────────────────────────────
def explained(packet: Packet, *tables: Table, pod: Pod | None = None) -> Explanation:
    return explain(Ruleset(tables), packet, pod or Pod())


def said(explanation: Explanation) -> str:
    """`redirect 127.0.0.1 15001: delivered here`."""
    outcome = explanation.outcome
    where = [str(part) for part in (outcome.address, outcome.port) if part is not None]
    return f"{' '.join((outcome.fate.value, *where))}{': ' if outcome.note else ''}{', '.join(outcome.note)}"


def possible(explanation: Explanation) -> set[str]:
    return {
        " ".join((outcome.fate.value, *(str(part) for part in (outcome.address, outcome.port) if part is not None)))
        for outcome, _ in explanation.either
    }


def met(explanation: Explanation) -> list[str]:
    """Chains and rules in the order in which they were met: `out 1`; `out policy`."""
    return [
        f"{step.chain} {step.rule.place if step.rule else 'policy'}"
        for step in explanation.path
        if isinstance(step, Step)
    ]


def passages(explanation: Explanation) -> list[str]:
    return [step.what for step in explanation.path if isinstance(step, Passage)]
