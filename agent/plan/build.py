"""The decision: which rules a namespace is to hold, in which order, and why each is there."""

import functools
from ipaddress import IPv6Address
from typing import Final

from agent.plan import capture, forgotten
from agent.plan.annotations import steering_of
from agent.plan.contradictions import check
from agent.plan.datagrams import datagrams
from agent.plan.errors import InvalidPlan
from agent.plan.marks import anchor
from agent.plan.proving import provable
from agent.plan.rules import Direction, IPFamily, RedirectPlan, Rule
from agent.plan.settings import PlanSettings
from agent.plan.steering import Steering
from agent.pods import PodRef
from proxy.api import constants

_PLANS: Final = 64
"""Remembered: 250 copies of 50 rules would be 4 MB."""
_PASSTHROUGH6: Final = IPv6Address(constants.PASSTHROUGH6)


def build_plan(pod: PodRef, settings: PlanSettings) -> RedirectPlan:
    """The plan for one pod: what its annotations wish, and the defaults for the rest. Raises InvalidPlan, which names
    the annotation and shows its value.

    Steering a port that the pod's owner has excluded could break a healthy pod: what cannot be read is refused.
    """
    wishes = steering_of(pod.annotations, settings.defaults)
    try:
        return plan_of(provable(wishes.steering) if settings.owners is None else wishes.steering, settings)
    except InvalidPlan as error:
        raise InvalidPlan(wishes.named(error.field), error.reason) from None


@functools.lru_cache(maxsize=_PLANS)
def plan_of(wanted: Steering, settings: PlanSettings) -> RedirectPlan:
    """The plan that gives what is wanted: one value for all who want the same. Raises InvalidPlan."""
    check(wanted, settings)
    return RedirectPlan(
        anchor(wanted, settings),
        _rules(wanted, settings),
        forgotten.drain(wanted, settings),
        settings.return_path_of(wanted.families),
        (_PASSTHROUGH6,) if _calls_from_passthrough(settings) and IPFamily.IPV6 in wanted.families else (),
    )


def _calls_from_passthrough(settings: PlanSettings) -> bool:
    return settings.own_pod and not settings.transparent


def drain_rule_ids(settings: PlanSettings) -> frozenset[str]:
    """Of the drain form, whatever is wanted: what it drops is the proxy's."""
    return frozenset(rule.rule_id for rule in forgotten.drain(Steering(), settings))


def _rules(wanted: Steering, settings: PlanSettings) -> tuple[Rule, ...]:
    return (
        *forgotten.inbound(wanted, settings),
        *forgotten.outbound(wanted, settings),
        *datagrams(Direction.INBOUND, wanted, settings),
        *datagrams(Direction.OUTBOUND, wanted, settings),
        *capture.inbound(wanted, settings),
        *capture.outbound(wanted, settings),
    )
