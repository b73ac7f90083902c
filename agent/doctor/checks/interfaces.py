"""Switches of interfaces that drop what rules have led elsewhere, or hide it from them. Pure.

Strict reverse path filtering alone does not harm our own rules (case B23, tests/netns/cases): what goes over lo keeps
the route that it left with and is not looked at again.
"""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import Facts, Interface, Namespace
from agent.doctor.findings import Finding, Severity
from agent.ruleset.inventory import HEADGATE

IDS: Final = {
    "reverse-path-filter": "rp_filter that drops answers of a pod with several interfaces",
    "src-valid-mark": "src_valid_mark with somebody's routing by mark",
    "ipv6-half-off": "IPv6 that is on here and off there",
}
_STRICT: Final = 1
_LOOPBACK: Final = "lo"
_REDIRECTS: Final = ("redirect to :", "-j REDIRECT", "tproxy to", "-j TPROXY")


def check(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        if pod.interfaces is None:
            continue
        yield from _strict(pod, pod.interfaces)
        yield from _valid_mark(pod, pod.interfaces)
        yield from _half_off(pod, pod.interfaces)


def _strict(pod: Namespace, interfaces: tuple[Interface, ...]) -> Iterator[Finding]:
    outer = [one for one in interfaces if one.name != _LOOPBACK and any(a.version == 4 for a in one.addresses)]
    strict = [one.name for one in outer if one.rp_filter == _STRICT]
    if len(outer) > 1 and strict:
        yield Finding(
            "reverse-path-filter",
            Severity.WARNING,
            pod.where,
            f"rp_filter is 1 (strict) on {', '.join(strict)}, and the pod has {len(outer)} interfaces with addresses",
            "a packet that comes in by another interface than its answer would leave by is dropped before any rule "
            "sees it; nothing counts it but nstat TcpExtIPReversePathFilter",
            "sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2 in the pod's network namespace, and of `all` too (the "
            "larger of both acts)",
        )


def _valid_mark(pod: Namespace, interfaces: tuple[Interface, ...]) -> Iterator[Finding]:
    on = [one.name for one in interfaces if one.src_valid_mark and one.name != _LOOPBACK]
    if not on or pod.rules is None:
        return
    by_mark = [
        rule for rule in pod.rules.inventory.routing.rules if rule.whose != HEADGATE and "fwmark" in rule.text.split()
    ]
    if by_mark:
        yield Finding(
            "src-valid-mark",
            Severity.WARNING,
            pod.where,
            f"src_valid_mark is 1 on {', '.join(on)}, and ip rule {by_mark[0].preference} routes by a mark "
            f"({by_mark[0].text})",
            "where a packet may come from is looked up with its mark: what was marked on its way in to be delivered "
            "here (TPROXY) is dropped as a martian",
            "sysctl -w net.ipv4.conf.all.src_valid_mark=0 in the pod's network namespace, unless its VPN needs it",
        )


def _half_off(pod: Namespace, interfaces: tuple[Interface, ...]) -> Iterator[Finding]:
    reachable = [
        f"{address} on {one.name}"
        for one in interfaces
        if one.name != _LOOPBACK
        for address in one.addresses
        if address.version == 6 and not address.is_link_local
    ]
    if reachable and _lacks_loopback(interfaces):
        yield Finding(
            "ipv6-half-off",
            Severity.SERIOUS,
            pod.where,
            f"the pod has IPv6 ({reachable[0]}), and lo has no ::1",
            "what the pod sends by IPv6 is redirected to ::1, which is not there: these connections fail",
            "sysctl -w net.ipv6.conf.lo.disable_ipv6=0 in the pod's network namespace (the address comes back with "
            "lo), or switch IPv6 off for the whole pod",
        )
    if reachable and frozenset(_steered_families(pod)) == {"ip"}:
        yield Finding(
            "ipv6-half-off",
            Severity.WARNING,
            pod.where,
            f"rules redirect IPv4 only, and the pod has IPv6 ({reachable[0]})",
            "what is sent and called by IPv6 passes the mesh by: no policy, no encryption, nothing counted",
            "let the mesh make its rules for IPv6 too (ip6tables and its nat table must be there), or switch IPv6 off "
            "for the whole pod",
        )
    yield from _missing(pod, interfaces)


def _lacks_loopback(interfaces: tuple[Interface, ...]) -> bool:
    loopback = next((one for one in interfaces if one.name == _LOOPBACK), None)
    return loopback is not None and not any(a.version == 6 and a.is_loopback for a in loopback.addresses)


def _missing(pod: Namespace, interfaces: tuple[Interface, ...]) -> Iterator[Finding]:
    declared = () if pod.pod is None else pod.pod.addresses
    held = {address for one in interfaces for address in one.addresses}
    missing = [address for address in declared if address.version == 6 and address not in held]
    if missing:
        off = [one.name for one in interfaces if one.ipv6 is False]
        yield Finding(
            "ipv6-half-off",
            Severity.WARNING,
            pod.where,
            f"the pod is to have {missing[0]}, and its network namespace has not"
            + (f": disable_ipv6 is set on {', '.join(off)}" if off else ""),
            "who calls the pod by IPv6 reaches nobody; it cannot be proved in that family",
            "sysctl -w net.ipv6.conf.INTERFACE.disable_ipv6=0 there and give the address back, or take IPv6 out of "
            "the cluster's pod addresses",
        )


def _steered_families(pod: Namespace) -> Iterator[str]:
    """Of others' rules: ours are for both or there are none (`inet`)."""
    if pod.rules is None or pod.rules.ours:
        return
    for table in pod.rules.inventory.tables:
        if any(word in rule.text for _, rule in table.rules for word in _REDIRECTS):
            yield table.family
