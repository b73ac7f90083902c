"""What is steered can be proved: the port that the agent's proof connects to is in, wherever ports decide.

It is Istio's probe port, on which nobody serves: to steer it beside what a pod wishes takes nothing from anybody.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from agent.plan.ranges import Ranges
from agent.plan.steering import Included, OwnerPorts, Steering
from proxy.api.constants import PROOF_PORT

_PROOF: Final = Ranges.of(PROOF_PORT)


def provable(wanted: Steering) -> Steering:
    """The same wishes without the proof's port among what is excluded, and with it among what is included. What steers
    nothing at all goes on steering nothing; networks, users and interfaces are left as they are."""
    inbound, outbound = wanted.include_inbound_ports, wanted.include_outbound
    return replace(
        wanted,
        include_inbound_ports=inbound | _PROOF if inbound else inbound,
        include_outbound=_with_proof(outbound),
        exclude_inbound_ports=_without_proof(wanted.exclude_inbound_ports),
        exclude_outbound_ports=_without_proof(wanted.exclude_outbound_ports),
        exclude_owner_ports=tuple(_of_others(wanted.exclude_owner_ports)),
    )


def _with_proof(outbound: Included | None) -> Included | None:
    if outbound is None or not (outbound.ports or outbound.networks):
        return outbound
    return replace(outbound, ports=outbound.ports | _PROOF)


def _of_others(pairs: tuple[OwnerPorts, ...]) -> Iterator[OwnerPorts]:
    for pair in pairs:
        ports = _without_proof(pair.ports)
        if ports:
            yield replace(pair, ports=ports)


def _without_proof(ports: Ranges) -> Ranges:
    if PROOF_PORT not in ports:
        return ports
    return Ranges.of(*(part for span in ports.spans for part in _around(*span)))


def _around(first: int, last: int) -> Iterator[tuple[int, int]]:
    if not first <= PROOF_PORT <= last:
        yield first, last
        return
    if first < PROOF_PORT:
        yield first, PROOF_PORT - 1
    if last > PROOF_PORT:
        yield PROOF_PORT + 1, last
