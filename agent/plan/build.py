"""The decision: which rules a pod's namespace is to hold, in which order, and why each is there."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from agent.plan.rules import (
    Capture,
    Direction,
    DropForgotten,
    Exempt,
    InNetwork,
    Inspect,
    IPFamily,
    KeepMark,
    Marked,
    Match,
    Opening,
    OverLoopback,
    PassGrandfathered,
    RedirectPlan,
    RestoreMark,
    ReturnPath,
    Rule,
    Side,
    SplitZone,
    Stage,
    ToMarkedSocket,
    ToPort,
)
from agent.pods import PodRef
from proxy.api import constants

_LOOPBACK4: Final = IPv4Network("127.0.0.0/8")  # RFC 1122 3.2.1.3: all of it, not 127.0.0.1 alone
_LOOPBACK6: Final = IPv6Network("::1/128")
_LINK_LOCAL6: Final = IPv6Network("fe80::/10")  # RFC 4291 2.5.6; redirecting it to ::1 is a black hole

_WAY: Final = {Direction.INBOUND: "in", Direction.OUTBOUND: "out"}

_PLANS: Final = 16

_UNSUPPORTED_PREFIXES: Final = ("headgate.io/exclude-", "headgate.io/include-")


class InvalidPlan(ValueError):
    """No plan can be made: `field` names the setting or annotation, `reason` what is wrong. Do not retry unchanged."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Ports and marks of the node's proxy. Construction validates; raises InvalidPlan."""

    outbound_port: int = constants.OUTBOUND_PORT
    inbound_port: int = constants.INBOUND_PORT
    tunnel_port: int = constants.TUNNEL_PORT
    proxy_mark: int = constants.PROXY_MARK
    return_mark: int = constants.RETURN_MARK
    mark_mask: int = constants.MARK_MASK

    def __post_init__(self) -> None:
        ports = {name: getattr(self, name) for name in ("outbound_port", "inbound_port", "tunnel_port")}
        for name, port in ports.items():
            if not 1 <= port <= 65535:
                raise InvalidPlan(name, f"{port} is no TCP port: use 1 to 65535")
        if len(set(ports.values())) != len(ports):
            raise InvalidPlan("outbound_port, inbound_port, tunnel_port", f"must differ, not {sorted(ports.values())}")
        if not 0 < self.mark_mask <= 0xFFFFFFFF:
            raise InvalidPlan("mark_mask", f"{self.mark_mask:#x} is no 32-bit mask")
        for name in ("proxy_mark", "return_mark"):
            mark = getattr(self, name)
            if mark == 0 or mark & ~self.mark_mask:
                raise InvalidPlan(name, f"{mark:#x} is not within mark_mask {self.mark_mask:#x}, or zero")
        if self.proxy_mark == self.return_mark:
            raise InvalidPlan("return_mark", f"{self.return_mark:#x} equals proxy_mark: answers would bypass the proxy")

    @property
    def steered_ports(self) -> frozenset[int]:
        """Where steered connections end: what a socket on these ports sends is translated by conntrack, or dropped."""
        return frozenset({self.outbound_port, self.inbound_port})

    @property
    def return_path(self) -> ReturnPath:
        return ReturnPath(self.return_mark, self.mark_mask, constants.RETURN_TABLE, constants.RETURN_RULE_PREFERENCE)

    @property
    def drain_rule_ids(self) -> frozenset[str]:
        """Of the drain form, which no annotation changes."""
        return frozenset(rule.rule_id for rule in _plan(self).drain)


def build_plan(pod: PodRef, settings: PlanSettings) -> RedirectPlan:
    """The plan for one pod. Raises InvalidPlan when the pod asks for what this version cannot give.

    Steering a port that the pod's owner has excluded could break a healthy pod: refuse and name the annotation.
    """
    for key, value in pod.annotations:
        if key.startswith(_UNSUPPORTED_PREFIXES):
            raise InvalidPlan(
                f"annotation {key}", f"value {value[:80]!r}: exclusions are not supported by this version"
            )
    return _plan(settings)


@functools.lru_cache(maxsize=_PLANS)
def _plan(settings: PlanSettings) -> RedirectPlan:
    """One value for all pods that need the same: 250 copies of 40 rules would be 3 MB."""
    forgotten_by_proxy = _forgotten_by_proxy(settings)
    inspect_inbound, inspect_outbound = (_inspect(direction) for direction in (Direction.INBOUND, Direction.OUTBOUND))
    rules = (
        inspect_inbound,
        *_forgotten_inbound(settings),
        inspect_outbound,
        *_forgotten_outbound(settings, forgotten_by_proxy),
        *_capture_inbound(settings),
        *_capture_outbound(settings),
    )
    drain = (inspect_outbound, _opening(Direction.OUTBOUND), forgotten_by_proxy)
    return RedirectPlan(_mark_rules(settings), rules, drain, settings.return_path)


def _mark_rules(s: PlanSettings) -> tuple[Rule, ...]:
    proxys = Marked(s.proxy_mark, s.mark_mask)
    zone_meaning = "the proxy's own packets are tracked apart: its upstream may use the very tuple of the client's"
    return (
        SplitZone("zone-in", zone_meaning, Direction.INBOUND, proxys, constants.PROXY_ZONE),
        SplitZone("zone-out", zone_meaning, Direction.OUTBOUND, proxys, constants.PROXY_ZONE),
        KeepMark(
            "return-mark-keep",
            "a connection that the proxy opened to the application is marked, so that its answers are known",
            Direction.OUTBOUND,
            proxys,
            s.return_mark,
        ),
        RestoreMark(
            "return-mark-restore",
            "the application's answers to the proxy, addressed to the client, are routed back to the proxy",
            Direction.OUTBOUND,
            s.return_mark,
            proxys,
        ),
    )


_NetworkCase = tuple[str, IPv4Network | IPv6Network, Side, str]
_LOOPBACK: Final[tuple[_NetworkCase, ...]] = (
    ("loopback4", _LOOPBACK4, Side.DESTINATION, "loopback addresses are never steered"),
    ("loopback6", _LOOPBACK6, Side.DESTINATION, "the loopback address is never steered"),
)
_LINK_LOCAL: Final[tuple[_NetworkCase, ...]] = (
    ("linklocal6-to", _LINK_LOCAL6, Side.DESTINATION, "link-local IPv6 is never steered: it cannot reach ::1"),
    ("linklocal6-from", _LINK_LOCAL6, Side.SOURCE, "link-local IPv6 is never steered: it cannot reach ::1"),
)


def _exempt_inbound(stage: Stage, s: PlanSettings) -> tuple[Exempt, ...]:
    return (
        _exempt(Direction.INBOUND, stage, "lo", OverLoopback(), "what comes over lo was judged when it was sent"),
        *_exempt_networks(Direction.INBOUND, stage),
        _exempt(
            Direction.INBOUND, stage, "tunnel", ToPort(s.tunnel_port), "the tunnel port reaches the proxy as it is"
        ),
    )


def _exempt_outbound(stage: Stage) -> tuple[Exempt, ...]:
    return (
        _exempt(Direction.OUTBOUND, stage, "lo", OverLoopback(), "the pod's own address, over lo, is never steered"),
        *_exempt_networks(Direction.OUTBOUND, stage),
    )


def _exempt_networks(direction: Direction, stage: Stage) -> Iterator[Exempt]:
    # Loopback addresses only travel over lo, which the rule before exempts. Where it is decided what to capture they
    # are named all the same: no route or interface trick may ever lead them to the proxy.
    cases = _LINK_LOCAL if stage is Stage.FORGOTTEN else (*_LOOPBACK, *_LINK_LOCAL)
    for name, network, side, why in cases:
        yield _exempt(direction, stage, name, InNetwork(network, side), why)


def _exempt(direction: Direction, stage: Stage, name: str, match: Match, meaning: str) -> Exempt:
    return Exempt(f"{_WAY[direction]}-{stage.value}-skip-{name}", meaning, direction, stage, match)


def _inspect(direction: Direction) -> Inspect:
    return Inspect(
        f"{_WAY[direction]}-inspect", "TCP that conntrack does not know is looked at more closely", direction
    )


def _opening(direction: Direction) -> Exempt:
    return _exempt(direction, Stage.FORGOTTEN, "opening", Opening(), "a new connection: it is captured further on")


def _grandfathered(direction: Direction) -> tuple[Rule, ...]:
    way = _WAY[direction]
    meaning = "connections older than these rules go on as they are"
    return (
        PassGrandfathered(f"{way}-grandfathered4", meaning, direction, IPFamily.IPV4),
        PassGrandfathered(f"{way}-grandfathered6", meaning, direction, IPFamily.IPV6),
    )


def _forgotten_by_proxy(s: PlanSettings) -> DropForgotten:
    return DropForgotten(
        "out-forgotten-proxy",
        "what the proxy answers on a steered connection that conntrack forgot would leave untranslated: dropped",
        Direction.OUTBOUND,
        (Marked(s.proxy_mark, s.mark_mask), tuple(sorted(s.steered_ports))),
    )


def _forgotten_inbound(s: PlanSettings) -> tuple[Rule, ...]:
    # An arriving answer to the proxy's own upstream carries no mark: only its socket tells whose it is.
    own = ToMarkedSocket(s.proxy_mark, s.mark_mask)
    return (
        _opening(Direction.INBOUND),
        *_exempt_inbound(Stage.FORGOTTEN, s),
        _exempt(Direction.INBOUND, Stage.FORGOTTEN, "proxy", own, "the proxy's own connections"),
        *_grandfathered(Direction.INBOUND),
        DropForgotten(
            "in-forgotten",
            "TCP unknown to conntrack: bytes of a steered connection would reach the application unseen: dropped",
            Direction.INBOUND,
        ),
    )


def _forgotten_outbound(s: PlanSettings, by_proxy: DropForgotten) -> tuple[Rule, ...]:
    proxys = Marked(s.proxy_mark, s.mark_mask)
    return (
        _opening(Direction.OUTBOUND),
        *_exempt_outbound(Stage.FORGOTTEN),
        by_proxy,
        _exempt(Direction.OUTBOUND, Stage.FORGOTTEN, "proxy", proxys, "the proxy's own connections"),
        *_grandfathered(Direction.OUTBOUND),
        DropForgotten(
            "out-forgotten",
            "TCP unknown to conntrack: bytes of a steered connection would leave in clear past the proxy: dropped",
            Direction.OUTBOUND,
        ),
    )


def _capture_inbound(s: PlanSettings) -> tuple[Rule, ...]:
    proxys = Marked(s.proxy_mark, s.mark_mask)
    return (
        *_exempt_inbound(Stage.CAPTURE, s),
        _exempt(Direction.INBOUND, Stage.CAPTURE, "proxy", proxys, "the proxy's own packets"),
        Capture(
            "in-capture", "every other new TCP connection to the pod meets the proxy", Direction.INBOUND, s.inbound_port
        ),
    )


def _capture_outbound(s: PlanSettings) -> tuple[Rule, ...]:
    proxys = Marked(s.proxy_mark, s.mark_mask)
    return (
        *_exempt_outbound(Stage.CAPTURE),
        _exempt(Direction.OUTBOUND, Stage.CAPTURE, "proxy", proxys, "the proxy's own packets: no loop"),
        Capture(
            "out-capture",
            "every other new TCP connection of the pod meets the proxy",
            Direction.OUTBOUND,
            s.outbound_port,
        ),
    )
