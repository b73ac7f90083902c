"""Whether kubelet's probes reach the application. Pure."""

from typing import Final

from agent.why.facts import Facts, Probes
from agent.why.verdict import Step, Verdict, failed, headgate, passed, skipped

_ENDED: Final = "kubelet ends containers whose liveness probe fails, and a pod that is not ready is in no Service"


def probes(facts: Facts) -> Verdict | None:
    """None where the agent leaves them as they are: they meet the proxy then, as any connection does."""
    told = facts.pod
    if told is None or told.probes is None:
        return None
    if not told.capturing:
        return skipped(Step.PROBES, "nothing is steered: they reach the application as ever")
    if (cut := _cut_off(told.probes)) is not None:
        return cut
    if not told.probes.listed:
        return failed(
            Step.PROBES,
            "the pod is not in the node's set: its probes meet the proxy, as any connection does",
            "they pass as long as a proxy is there and its policy lets them, and not a moment longer",
            "the agent puts it there within five seconds; if it does not come, see what it names as a problem",
            headgate("pods", facts.run_dir),
        )
    opened = [f"{one.address} {one.status}" for one in told.probes.paths]
    notes = [f"{one.address}: {one.reason}" for one in told.probes.paths if one.reason]
    return passed(Step.PROBES, f"in the node's set; {', '.join(opened) or 'their way is not tried yet'}", *notes)


def _cut_off(told: Probes) -> Verdict | None:
    wrong = [one for one in told.paths if one.fails]
    if not wrong:
        return None
    found, remedy = (dict.fromkeys(texts) for texts in zip(*((one.reason, one.remedy) for one in wrong), strict=True))
    return failed(Step.PROBES, "; ".join(found), _ENDED, "; ".join(remedy))
