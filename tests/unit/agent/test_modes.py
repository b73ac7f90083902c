"""Rules of `headgate init` are told from a node agent's by what they are called: by every plan, in both forms."""

from dataclasses import replace

import pytest

from agent.plan import PlanSettings, RedirectPlan, plan_of
from agent.plan.modes import are_a_sidecars
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners, Steering
from tests.golden.agent import steerings

_GROUP = PlanSettings(owners=Owners(gids=Ranges.of(2102)))


def held_ids(plan: RedirectPlan, drained: bool) -> list[str]:
    return [rule.rule_id for rule in (*plan.anchor, *(plan.drain if drained else plan.rules))]


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("wanted", [steerings.DEFAULT, steerings.EVERYTHING], ids=["default", "everything"])
@pytest.mark.parametrize(
    ("settings", "sidecars"),
    [
        (steerings.NODE, False),
        (steerings.PROBED_NODE, False),
        (steerings.SIDECAR, True),
        (steerings.SIDECAR_OF_MANY, True),
        (steerings.TRANSPARENT_SIDECAR, True),
        (_GROUP, True),
        (replace(_GROUP, own_pod=False), True),
    ],
)
def test_each_mode_is_known_by_its_rules(
    settings: PlanSettings, sidecars: bool, wanted: Steering, drained: bool
) -> None:
    allowed = wanted if settings.owners is not None else replace(wanted, drop_invalid=False)
    assert are_a_sidecars(held_ids(plan_of(allowed, settings), drained)) is sidecars


@pytest.mark.parametrize("settings", [steerings.SIDECAR, _GROUP])
def test_the_anchor_alone_tells(settings: PlanSettings) -> None:
    """What the agent asks first."""
    assert are_a_sidecars(rule.rule_id for rule in plan_of(Steering(), settings).anchor)


def test_users_whom_a_pods_owner_excludes_make_no_sidecar() -> None:
    assert not are_a_sidecars(
        ["out-capture-skip-excluded-users", "out-capture-skip-other-groups", "zone-out", "zone-in"]
    )
