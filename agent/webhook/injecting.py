"""What `headgate inject` does to a manifest, done to a pod that is being created. Pure."""

from collections.abc import Mapping
from typing import Any

from agent.inject.edits import json_patch
from agent.inject.errors import Refused
from agent.inject.pod import injected
from agent.inject.template import Template
from agent.webhook.review import Mutate, Mutation


def by(template: Template) -> Mutate:
    """Each pod as the template has it; also again, when another webhook has changed it meanwhile."""

    def mutate(pod: Mapping[str, Any], _: str) -> Mutation:
        try:
            injection = injected(pod, template)
        except Refused as error:
            return Mutation(refusal=f"headgate: {error}")
        skipped = (f"headgate: not injected: {injection.skipped}",) if injection.skipped else ()
        warnings = tuple(f"headgate: {one}" for one in injection.warnings)
        return Mutation(json_patch(injection.edits), (*skipped, *warnings))

    return mutate
