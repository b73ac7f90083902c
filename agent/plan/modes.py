"""Whose rules a namespace holds: the agent's, or those that `headgate init` put there for the pod's own proxy."""

import re
from collections.abc import Iterable
from typing import Final

_BY_OWNER: Final = re.compile(
    r"zone-out-(users|groups)|out-(capture|datagram|forgotten)-skip-proxy-(users|groups)|out-own-pod-(users|groups)"
)
"""Of these every plan with PlanSettings.owners has some, in the steering and in the drain form, and no other: a node's
proxy is known by its mark, a sidecar by who runs it."""


def are_a_sidecars(rule_ids: Iterable[str]) -> bool:
    return any(_BY_OWNER.fullmatch(rule_id) for rule_id in rule_ids)
