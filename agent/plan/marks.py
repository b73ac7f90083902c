"""The anchor: how a packet is tracked and marked. What living steered connections need, whatever else changes."""

from collections.abc import Iterator

from agent.plan.matching import all_of, excluded_interfaces, marked, proxys
from agent.plan.rules import Direction, KeepMark, OfProtocol, Protocol, RestoreMark, Rule, SplitZone, Stage
from agent.plan.settings import PlanSettings
from agent.plan.steering import Steering
from proxy.api import constants


def anchor(wanted: Steering, settings: PlanSettings) -> tuple[Rule, ...]:
    return (*_zones(wanted, settings), *_marks(wanted, settings))


def _zones(wanted: Steering, settings: PlanSettings) -> Iterator[Rule]:
    meaning = "the proxy's own packets are tracked apart: its upstream may use the very tuple of the client's"
    if settings.transparent:
        yield from excluded_interfaces(Direction.INBOUND, Stage.TRACK, wanted)
        yield SplitZone("zone-in", meaning, Direction.INBOUND, marked(settings), constants.PROXY_ZONE)
    yield from excluded_interfaces(Direction.OUTBOUND, Stage.TRACK, wanted)
    if settings.transparent:
        yield SplitZone("zone-out", meaning, Direction.OUTBOUND, marked(settings), constants.PROXY_ZONE)
    if settings.owners is not None:
        # Of UDP alone: what TCP sends for a closed socket (TIME_WAIT, the last FIN) has a mark, but no owner any more,
        # and would be unknown in the other zone. TCP tuples clash only within the 10 s in which conntrack remembers a
        # connection that the proxy has reset: who gets its very port is led to the proxy once more.
        for name, match in proxys(settings):
            rule_id = f"zone-out-{name.removeprefix('proxy-')}"
            of_udp = all_of(OfProtocol(Protocol.UDP), match)
            yield SplitZone(rule_id, meaning, Direction.OUTBOUND, of_udp, constants.PROXY_ZONE)


def _marks(wanted: Steering, settings: PlanSettings) -> Iterator[Rule]:
    if not settings.transparent:
        return
    proxys_mark = marked(settings)
    yield from excluded_interfaces(Direction.OUTBOUND, Stage.MARK, wanted)
    yield KeepMark(
        "return-mark-keep",
        "a connection that the proxy opened to the application is marked, so that its answers are known",
        Direction.OUTBOUND,
        proxys_mark,
        settings.return_mark,
    )
    yield RestoreMark(
        "return-mark-restore",
        "the application's answers to the proxy, addressed to the client, are routed back to the proxy",
        Direction.OUTBOUND,
        settings.return_mark,
        proxys_mark,
    )
