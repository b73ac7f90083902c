"""What becomes of a packet in the network namespace that the calling thread is in: its rules read and interpreted, and
with it what a person needs besides."""

import gc
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from agent.explain.interpret import explain
from agent.explain.outcome import Explanation
from agent.explain.packet import UDP
from agent.explain.tables import Ruleset
from agent.kernel import iproute, nft, sock_diag
from agent.kernel.node_proc import node_proc
from agent.kernel.socket_owners import owner_of
from agent.kernel.surroundings import KernelSurroundings
from agent.plan import IPFamily
from agent.ruleset import nft_listing
from agent.ruleset.explained import ChainKey, Explained, chains_shown, ports_led_to
from agent.ruleset.packet_options import Described, Held, Options, Place, described
from agent.ruleset.whole import settled


def explained(options: Options, *, everything: bool = False) -> Explained:
    """`everything`: no rule that missed is left out, so the text of each is read. Raises BadPacket; OSError and
    KernelRefused when the rules cannot be read."""
    place = here()
    asked = described(options, place)
    family = IPFamily.IPV4 if asked.packet.destination.version == 4 else IPFamily.IPV6

    def ask(ruleset: Ruleset) -> tuple[Explanation, tuple[str, ...], Mapping[ChainKey, list[str]]]:
        found = explain(ruleset, asked.packet, place.surroundings)
        return found, ruleset.unread, _texts(chains_shown(found, everything=everything))

    with _without_collection():
        explanation, unread, texts = settled(ask, (family,))
    return Explained(asked, explanation, unread, texts, _listeners(asked, ports_led_to(explanation)))


def here() -> Place:
    """The calling thread's namespace. Raises OSError."""
    names = dict(socket.if_nameindex())
    addresses = (
        Held(names[found.interface], found.address, found.prefix_length)
        for found in iproute.read_interface_addresses()
        if found.interface in names  # else it went between the two readings
    )
    return Place(KernelSurroundings(), tuple(names.values()), tuple(addresses))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Five thousand rules are half a million objects, none of which is garbage: the collector walking them doubles the
    time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _texts(chains: Mapping[ChainKey, int]) -> dict[ChainKey, list[str]]:
    """As nft prints them; none of a chain whose name it does not take, or where a line break could deceive."""
    texts: dict[ChainKey, list[str]] = {}
    for key, count in chains.items():
        rules = nft_listing.rules_of_chain(nft.list_chain(*key) or "", count)
        if rules is not None:
            texts[key] = rules
    return texts


def _listeners(asked: Described, ports: Iterable[int]) -> dict[int, str]:
    """In words, who listens at each."""
    version = asked.packet.destination.version
    if asked.packet.protocol == UDP:
        bound = sock_diag.datagram_ports() if ports else frozenset()
        return {port: "a socket is bound to it" if port in bound else "nobody is bound to it" for port in ports}
    there = sock_diag.listeners() if ports else ()
    return {port: _listener([one for one in there if one.port == port and _takes(one, version)]) for port in ports}


def _takes(listener: sock_diag.Listener, version: int) -> bool:
    return listener.address.version == version or (version == 4 and listener.address.is_unspecified)


def _listener(found: list[sock_diag.Listener]) -> str:
    if not found:
        return "nobody listens there"
    owner = owner_of(found[0], node_proc())
    return "somebody listens there" if owner is None else f"{owner.command}, pid {owner.pid}, listens there"
