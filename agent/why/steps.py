"""Why a pod is not in the mesh: facts -> one verdict a step, in the order in which a pod takes them. Pure.

Every step is judged by the facts that concern it, also behind one that fails: the first failure is the cause, what
follows may be its consequence, or another fault beside it.
"""

from agent.why import asked_steps, place_steps, probe_steps, rules_steps, serving_steps
from agent.why.facts import Facts
from agent.why.verdict import Result, Verdict


def judge(facts: Facts) -> tuple[Verdict, ...]:
    """One verdict for each of agent.why.verdict.Step, in their order; none of probes that are nothing of ours."""
    asked = (
        asked_steps.agent(facts),
        asked_steps.pod(facts),
        asked_steps.selection(facts),
        asked_steps.annotations(facts),
    )
    place = (place_steps.netns(facts), place_steps.ports(facts))
    proxy = serving_steps.proxy(facts)
    rules = rules_steps.rules(facts, (*asked, *place, proxy))
    probes = probe_steps.probes(facts)
    return (
        *asked,
        *place,
        proxy,
        rules,
        serving_steps.policy(facts, proxy),
        rules_steps.proofs(facts, rules),
        *(() if probes is None else (probes,)),
        rules_steps.outside(facts),
    )


def first_failure(verdicts: tuple[Verdict, ...]) -> Verdict | None:
    return next((verdict for verdict in verdicts if verdict.result is Result.FAILED), None)
