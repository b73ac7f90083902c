"""What is to be done to a pod's traffic: an immutable, ordered, backend-neutral value. No IO.

`build_plan` decides, `diff_plan` compares, `agent.plan.render` writes it down for one backend.
"""

from agent.plan.build import build_plan, drain_rule_ids, plan_of
from agent.plan.diff import PlanChange, diff_plan
from agent.plan.errors import InvalidPlan
from agent.plan.rules import (
    Capture,
    Direction,
    DropForgotten,
    Exempt,
    IPFamily,
    KeepMark,
    PassGrandfathered,
    RedirectPlan,
    Refuse,
    RestoreMark,
    ReturnPath,
    Rule,
    SplitZone,
)
from agent.plan.settings import PlanSettings, ProbeSettings
from agent.plan.steering import Steering
from agent.plan.tuples import FlowKey, FlowTuple, OnUnsteered, OtherEnds, opened_meanwhile, outside_the_mesh, steerable

__all__ = [
    "Capture",
    "Direction",
    "DropForgotten",
    "Exempt",
    "FlowKey",
    "FlowTuple",
    "IPFamily",
    "InvalidPlan",
    "KeepMark",
    "OnUnsteered",
    "OtherEnds",
    "PassGrandfathered",
    "PlanChange",
    "PlanSettings",
    "ProbeSettings",
    "RedirectPlan",
    "Refuse",
    "RestoreMark",
    "ReturnPath",
    "Rule",
    "SplitZone",
    "Steering",
    "build_plan",
    "diff_plan",
    "drain_rule_ids",
    "opened_meanwhile",
    "outside_the_mesh",
    "plan_of",
    "steerable",
]
