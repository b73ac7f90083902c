"""Whether there is a namespace in which the pod can be steered, and whether the proxy's ports are free there. Pure."""

import shlex
from typing import Final

from agent.why.facts import Agent, Facts, Listed, Netns, NoNetns, Pod, PortHeld, SourceKind, Unknown, Unopened
from agent.why.verdict import Step, Verdict, failed, passed, skipped, unknown
from proxy.api.constants import DNS_PORT, INBOUND_PORT, OUTBOUND_PORT, TUNNEL_PORT

_LISTENERS: Final = {OUTBOUND_PORT: "outbound", INBOUND_PORT: "inbound", TUNNEL_PORT: "tunnel", DNS_PORT: "DNS"}
_ELSEWHERE: Final = "ask where the agent's files are (kubectl exec into its pod)"
_NO_RULES: Final = "no rule is made in a namespace that is not surely the pod's"


# ── netns ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def netns(facts: Facts) -> Verdict:
    place = facts.netns
    if isinstance(place, Unknown):
        return unknown(Step.NETNS, place.reason)
    if isinstance(place, NoNetns):
        return _not_there(place, facts)
    if _is_nodes(place, facts):
        return _nodes(place)
    if facts.pod is not None and facts.pod.netns_id != place.id:
        return _recycled(place, facts.pod)
    if facts.pod is not None and (misfit := _misfit(place, facts.pod, facts)) is not None:
        return misfit
    return _loopback(place) or passed(Step.NETNS, f"{place.path} is there, and {_holds(place, facts.pod)}")


def _not_there(place: NoNetns, facts: Facts) -> Verdict:
    if place.kind is Unopened.MISSING and facts.pod is not None and facts.pod.state != "failed":
        return unknown(Step.NETNS, f"{place.path} is not there for this command, and it is for the agent: {_ELSEWHERE}")
    match place.kind:
        case Unopened.DENIED:
            return unknown(Step.NETNS, f"{place.path} cannot be entered: {place.detail}; CAP_SYS_ADMIN is needed")
        case Unopened.MISSING:
            found = f"{place.path} is not there"
            remedy = f"start the pod, or correct its `netns`{_in_source(facts)}"
        case Unopened.NO_NETNS:
            found = f"{place.path} is no network namespace: {place.detail}"
            remedy = f"give a name under /run/netns, or /proc/PID/ns/net, as its `netns`{_in_source(facts)}"
    return failed(
        Step.NETNS, found, "rules live in the pod's network namespace, and die with it", remedy, "ip netns list"
    )


def _in_source(facts: Facts) -> str:
    known = facts.agent
    return f" in {known.source.place}" if isinstance(known, Agent) and known.source.kind is SourceKind.FILE else ""


def _is_nodes(place: Netns, facts: Facts) -> bool:
    return place.id == facts.agent.netns_id if isinstance(facts.agent, Agent) else place.own


def _nodes(place: Netns) -> Verdict:
    return failed(
        Step.NETNS,
        f"{place.path} is the node's own network namespace (hostNetwork)",
        "rules there would lead the traffic of the whole node to one pod's proxy",
        "a hostNetwork pod cannot be in the mesh: label it headgate.io/mesh: disabled, or give it a network of its own",
    )


def _recycled(place: Netns, told: Pod) -> Verdict:
    return failed(
        Step.NETNS,
        f"{place.path} is another namespace now ({place.id}) than the one that the agent took up ({told.netns_id})",
        "the pod's sandbox was made anew; rules and listeners of the former one are gone with it",
        "the agent finds it by itself within a second; if it does not, see its log: ask again",
    )


def _misfit(place: Netns, told: Pod, facts: Facts) -> Verdict | None:
    """As agent.reconcile.entering judges it: one of the pod's addresses suffices."""
    if not told.addresses or set(told.addresses) & set(place.addresses):
        return None
    own, holds = _words(told.addresses), _words(place.addresses) or "none"
    return failed(
        Step.NETNS,
        f"{place.path} does not hold the pod's address {own} (it holds: {holds})",
        f"it may be somebody else's: {_NO_RULES}",
        f"correct the pod's `netns` or `addresses`{_in_source(facts)}",
        f"nsenter --net={shlex.quote(place.path)} ip address",
    )


def _loopback(place: Netns) -> Verdict | None:
    """What is redirected on its way out goes to 127.0.0.1 or ::1, on lo (nf_nat_redirect.c)."""
    lo, enter = place.loopback, f"nsenter --net={shlex.quote(place.path)}"
    why = "redirected connections of the application go over lo, and end there"
    if not lo.up:
        remedy = "set it up; a container runtime does so when it makes the sandbox"
        return failed(Step.NETNS, f"lo is down in {place.path}", why, remedy, f"{enter} ip link set lo up")
    if not lo.has4:
        command = f"{enter} ip address add 127.0.0.1/8 dev lo"
        return failed(Step.NETNS, f"lo has no 127.0.0.1 in {place.path}", why, "give it back", command)
    if lo.has6 or not any(address.version == 6 and _is_global(address) for address in place.addresses):
        return None
    off = " (IPv6 is switched off there)" if lo.ipv6_off else ""
    commands = ["sysctl -w net.ipv6.conf.lo.disable_ipv6=0"] if lo.ipv6_off else []
    return failed(
        Step.NETNS,
        f"lo has no ::1 in {place.path}{off}, and the pod has an IPv6 address",
        f"IPv6 is half there: {why}",
        "give lo its address back, or switch IPv6 off for the whole pod",
        *(f"{enter} {command}" for command in commands or ["ip -6 address add ::1/128 dev lo"]),
    )


def _is_global(address: object) -> bool:
    return not (getattr(address, "is_link_local", False) or getattr(address, "is_loopback", False))


def _holds(place: Netns, told: Pod | None) -> str:
    if told is None or not told.addresses:
        held = [address for address in place.addresses if _is_global(address)]
        return f"holds {_words(tuple(held)) or 'no address'}"
    return f"holds {_words(tuple(address for address in told.addresses if address in place.addresses))}"


def _words(addresses: tuple[object, ...]) -> str:
    return ", ".join(map(str, addresses))


# ── ports ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def ports(facts: Facts) -> Verdict:
    if not isinstance(facts.netns, Netns):
        return skipped(Step.PORTS, "nobody could look into the pod's namespace")
    held = facts.netns.ports
    taken = [port for port in held if port.marked is False]
    if taken and (facts.pod is not None or isinstance(facts.listed, Listed)):
        return _taken(taken)
    if taken:
        notes = [f"{_holder(port)} listens on {port.port} without headgate's mark" for port in taken]
        return passed(Step.PORTS, "whose they are, only the agent knows", *notes)
    if any(port.marked is None for port in held):
        return unknown(Step.PORTS, "the kernel tells the marks of sockets to CAP_NET_ADMIN only")
    if held:
        return passed(Step.PORTS, f"{_numbers(held)} are the proxy's")
    return passed(Step.PORTS, f"{', '.join(map(str, sorted(_LISTENERS)))} are free")


def _taken(taken: list[PortHeld]) -> Verdict:
    found = "; ".join(f"port {port.port} ({_LISTENERS[port.port]}) is taken by {_holder(port)}" for port in taken)
    commands = [f"ls -l /proc/{port.pid}/exe" for port in taken if port.pid]
    return failed(
        Step.PORTS,
        found,
        "the proxy must listen there; the pod is left as it was, before any rule is made",
        "move the application to another port; the agent looks again by itself, within a minute",
        *dict.fromkeys(commands),
    )


def _holder(port: PortHeld) -> str:
    return f"process {port.pid} ({port.command})" if port.pid else "a process that cannot be seen from here"


def _numbers(held: tuple[PortHeld, ...]) -> str:
    return ", ".join(str(number) for number in sorted({port.port for port in held}))
