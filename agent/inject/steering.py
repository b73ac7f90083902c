"""A pod's annotations as the arguments of its init container.

`headgate init` reads no annotation: it has no API server to ask, and the downward API gives it headgate's own only. So
they are decided upon here, with the node agent's precedence among four meshes' words, and written in headgate's.
"""

from dataclasses import replace
from typing import Any, Final

from agent.inject.errors import Refused
from agent.inject.template import ADMIN_PORTS, PROXY_ID
from agent.plan import InvalidPlan, PlanSettings, plan_of
from agent.plan.annotation_keys import FAMILIES, INCLUDE_OUTBOUND, Mesh
from agent.plan.annotations import Wishes, steering_of, told
from agent.plan.ranges import Ranges
from agent.plan.steering import Included, Owners, Steering
from agent.pods import sorted_pairs
from agent.printable import printable

_OURS: Final = "headgate.io/"
_OPTIONS: Final = {
    family.name: f"--{key.name.removeprefix(_OURS)}"
    for family in FAMILIES
    if family is not INCLUDE_OUTBOUND
    for key in family.keys
    if key.mesh is Mesh.HEADGATE
}
_SETTINGS: Final = PlanSettings(owners=Owners(Ranges.of(PROXY_ID)))
"""What `headgate init` has without options."""
_NO_DNS: Final = "the sidecar answers no queries, so that they are not led to it: annotation {} is left out"


def arguments(annotations: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(Arguments of `headgate init`, warnings). Raises Refused, which names the annotation and shows its value."""
    try:
        wishes = steering_of(sorted_pairs(annotations.items()), Steering())
    except InvalidPlan as error:
        raise Refused(error.field, error.reason) from None
    warnings = []
    if wishes.steering.dns is not None:
        warnings.append(_NO_DNS.format(printable(wishes.named("dns").removeprefix("annotation "))))
    wanted = _with_ours(wishes.steering)
    try:
        plan_of(wanted, _SETTINGS)
    except InvalidPlan as error:
        raise Refused(wishes.named(error.field), error.reason) from None
    return tuple(_written(wanted, wishes)), tuple(warnings)


def _with_ours(wanted: Steering) -> Steering:
    return replace(wanted, exclude_inbound_ports=wanted.exclude_inbound_ports | Ranges.of(*ADMIN_PORTS), dns=None)


def _written(wanted: Steering, wishes: Wishes) -> list[str]:
    said = {origin.what for origin in wishes.origins} - {"dns-capture"} | {"exclude-inbound-ports"}
    words: list[str] = []
    for family in FAMILIES:
        value: Any = getattr(wanted, family.field)
        if family is INCLUDE_OUTBOUND and isinstance(value, Included):
            words += _included(value)
        elif family.name in said and family is not INCLUDE_OUTBOUND:
            words += [_OPTIONS[family.name], told(value)]
    return words


def _included(value: Included) -> list[str]:
    """Both, where either is said: an absent one would be `everything` in no mesh, an empty one is nothing in all."""
    ports, networks = told(value.ports), told(value.networks)
    return ["--include-outbound-ports", ports, "--include-outbound-cidrs", networks]
