"""What the agent steers of a pod that says nothing else, as options: the same words as the annotations."""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from agent.plan import InvalidPlan, PlanSettings, build_plan
from agent.plan.annotation_keys import FAMILIES, Mesh
from agent.plan.annotations import steering_of
from agent.plan.steering import Steering
from agent.pods import PodRef

R = TypeVar("R")

_PREFIX: Final = "headgate.io/"
_OPTIONS: Final = tuple(
    (key.name.removeprefix(_PREFIX), family) for family in FAMILIES for key in family.keys if key.mesh is Mesh.HEADGATE
)
_ANY_POD: Final = PodRef("defaults", "default", "defaults")


def default_options(command: Callable[..., R]) -> Callable[..., R]:
    """An option for each of headgate's own annotations; the command gets `defaults: Steering`."""

    @functools.wraps(command)
    def called(*args: Any, **given: Any) -> R:
        chosen = {name: given.pop(_variable(name)) for name, _ in _OPTIONS}
        return command(*args, defaults=read(chosen), **given)

    decorated: Callable[..., R] = called
    for name, family in reversed(_OPTIONS):
        meaning = f"For pods without such an annotation: {family.meaning}."
        decorated = click.option(
            f"--{name}", _variable(name), envvar=f"HEADGATE_{_variable(name).upper()}", metavar="TEXT", help=meaning
        )(decorated)
    return decorated


def read(chosen: dict[str, str | None]) -> Steering:
    """Option names and what was given for them. Raises click.BadParameter that names the option."""
    words = tuple((f"{_PREFIX}{name}", text) for name, text in chosen.items() if text is not None)
    try:
        defaults = steering_of(words, Steering()).steering
        build_plan(_ANY_POD, PlanSettings(defaults=defaults))  # what contradicts itself is found here, not in each pod
    except InvalidPlan as error:
        raise click.BadParameter(error.reason, param_hint=_option_of(error.field)) from None
    return defaults


def _option_of(fields: str) -> str:
    """Of annotations, or of fields of Steering, with commas between."""
    named = []
    for field in fields.split(", "):
        name = field.removeprefix("annotation ").removeprefix(_PREFIX)
        named += [option for option, family in _OPTIONS if name in (option, family.field)] or [name]
    return " / ".join(f"--{option}" for option in named)


def _variable(name: str) -> str:
    return name.replace("-", "_")
