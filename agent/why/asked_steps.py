"""The first steps: whether the agent is there, knows the pod, is to steer it, and can give what it asks for. Pure."""

from difflib import get_close_matches
from typing import Final

from agent.pods import MESH_LABEL
from agent.why.facts import Agent, Facts, LeftOut, NoAnswer, Origin, Pod, Source, SourceKind
from agent.why.verdict import Step, Verdict, failed, headgate, passed, silent, skipped

_WORDS: Final = frozenset({"enabled", "disabled"})
_LEAVING: Final = frozenset({"leaving", "gone"})
_NAMED: Final = 5
"""Pods that a line has room for."""
_MEANT, _ALIKE = 2, 0.85
"""Of names that differ by a letter or two; a namespace that is the same makes all of them look alike."""
_UNHEARD: Final = "the agent was not heard"


def agent(facts: Facts) -> Verdict:
    if isinstance(facts.agent, NoAnswer):
        why = (
            "nobody enrols pods, nor puts their rules in order; what is in force stays in force, and what is lost "
            "stays lost"
        )
        return silent(Step.AGENT, "agent", facts.agent, why, facts.run_dir)
    known = len(facts.agent.source.pods)
    return passed(Step.AGENT, f"answers; it knows {known} pods and makes rules of {facts.agent.backend}")


# ── Known ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def pod(facts: Facts) -> Verdict:
    if isinstance(facts.agent, NoAnswer):
        return skipped(Step.POD, _UNHEARD)
    source = facts.agent.source
    if facts.pod is not None:
        others = [f"problem of the source: {problem}" for problem in source.problems]
        return passed(Step.POD, f"{facts.pod.name}, from {_place(source)}", *others)
    if isinstance(facts.listed, LeftOut):
        return passed(Step.POD, f"{facts.asked} is known to {_place(source)}")
    if facts.listed is not None:
        return passed(Step.POD, f"{facts.asked} stands in {_place(source)}")
    return _stranger(facts.asked, facts.agent)


def _place(source: Source) -> str:
    match source.kind:
        case SourceKind.FILE:
            return f"pods file {source.place}"
        case SourceKind.NAMES:
            return f"the namespaces named in {source.place}"
        case SourceKind.CLUSTER:
            return source.place


def _stranger(asked: str, known: Agent) -> Verdict:
    source = known.source
    if not asked:
        return failed(
            Step.POD,
            f"no pod that the agent knows is in this network namespace (its pods come from {_place(source)})",
            "the agent steers the pods of its source, and no others",
            _how_to_add(source),
        )
    found = f"not selected: no pod {asked} in {_place(source)}"
    broken = [problem for problem in source.problems if _speaks_of(problem, asked)]
    if broken:
        told = "; ".join(broken)
        return failed(
            Step.POD,
            f"{found}; an entry of its name cannot be used: {told}",
            "what cannot be understood is left out of the mesh",
            f"correct that entry of {source.place}; the agent reads it again at once",
        )
    notes = tuple(f"problem of the source: {problem}" for problem in source.problems)
    why = "the agent steers the pods of its source, and no others: this one's traffic goes past the mesh"
    return failed(Step.POD, found + _near(asked, source), why, _how_to_add(source), notes=notes)


def _speaks_of(problem: str, asked: str) -> bool:
    """As agent.sources writes them: `FILE: pod 2 (NAMESPACE/NAME): …`, `DIRECTORY/NAME: …`."""
    return f"({asked})" in problem or f"/{asked.partition('/')[2]}: " in problem


def _near(asked: str, source: Source) -> str:
    name = asked.partition("/")[2]
    elsewhere = [known for known in source.pods if known.partition("/")[2] == name]
    near = elsewhere or get_close_matches(asked, source.pods, _MEANT, _ALIKE)
    if near:
        return f"; did you mean {' or '.join(near[:_MEANT])}?"
    shown = ", ".join(source.pods[:_NAMED]) or "none"
    more = len(source.pods) - _NAMED
    return f" (it has: {shown}{f' and {more} more' if more > 0 else ''})"


def _how_to_add(source: Source) -> str:
    if source.kind is SourceKind.CLUSTER:
        return "ask on the node where it runs: kubectl get pod -o wide names it"
    if source.kind is SourceKind.FILE:
        return f"list it in {source.place}: name, namespace, netns, addresses; or ask on the node where it runs"
    return f"give its namespace a name in {source.place} (ip netns attach NAME PID), or ask on the node where it runs"


# ── Selected ───────────────────────────────────────────────────────────────────────────────────────────────────────
def selection(facts: Facts) -> Verdict:
    told = facts.pod
    reason = facts.listed.reason if isinstance(facts.listed, LeftOut) else "" if told is None else told.left_out
    if reason:
        return _left_out(facts, reason)
    if told is None:
        return _untold(Step.SELECTION, facts)
    label = f"label {MESH_LABEL}"
    if told.mesh_label == "disabled":
        return failed(
            Step.SELECTION,
            f"not selected: the pod's {label} is disabled" + _still_leaving(told),
            "the label takes the pod out of the mesh: nothing of its traffic is to be led to the proxy",
            f"take the label away, or set it to enabled{_where(facts)}",
        )
    if told.state in _LEAVING:
        found = f"the pod leaves the mesh ({told.state}): {told.reason or 'its source no longer has it'}"
        return failed(
            Step.SELECTION,
            found,
            "nothing new is captured; steered connections end in their own time",
            f"wait for its end, or put it back{_where(facts)}",
        )
    if told.mesh_label is None:
        return passed(Step.SELECTION, f"in the mesh: the source lists it, and no {label} says otherwise")
    if told.mesh_label not in _WORDS:
        note = f"only the word disabled takes a pod out: {told.mesh_label} is none of enabled and disabled"
        return passed(Step.SELECTION, f"in the mesh: the source lists it, and its {label} is misspelt", note)
    return passed(Step.SELECTION, f"in the mesh: {label} is {told.mesh_label}")


def _left_out(facts: Facts, reason: str) -> Verdict:
    namespace, _, name = facts.asked.partition("/")
    label = f"label {{}} {MESH_LABEL}=enabled --overwrite"
    return failed(
        Step.SELECTION,
        f"not selected: {reason}",
        "what is not selected is left as it is: nothing of the pod is led to the proxy",
        "if it is to be in the mesh, label it or its namespace; a pod on the host's network, or with a proxy of its "
        "own, cannot be",
        f"kubectl {label.format(f'pod {name} -n {namespace}')}",
        f"kubectl {label.format(f'namespace {namespace}')}",
    )


def _still_leaving(told: Pod) -> str:
    return f" (it is leaving: {told.reason or 'steered connections live on'})" if told.state in _LEAVING else ""


def _where(facts: Facts) -> str:
    known = facts.agent
    if isinstance(known, Agent) and known.source.kind is SourceKind.FILE:
        return f" in {known.source.place}"
    return ""


def _untold(step: Step, facts: Facts) -> Verdict:
    if isinstance(facts.agent, NoAnswer):
        return skipped(step, _UNHEARD)
    return skipped(step, "the agent does not know the pod")


# ── Asked for ──────────────────────────────────────────────────────────────────────────────────────────────────────
def annotations(facts: Facts) -> Verdict:
    told = facts.pod
    if told is None:
        return _untold(Step.ANNOTATIONS, facts)
    wishes = told.wishes
    if wishes.error:
        effect = "the rules of before stay in force" if told.capturing else "the pod stays as it was, outside the mesh"
        return failed(
            Step.ANNOTATIONS,
            f"what the pod asks for cannot be given: {wishes.error}",
            f"rules that nobody asked for are never made: {effect}",
            f"correct or remove what is named{_where(facts)}; docs/annotations.md has every key and its values",
            headgate(f"rules plan {told.name}", facts.run_dir),
        )
    said = [origin for origin in wishes.origins if origin.key.find("/") > 0]
    notes = [_overruled(origin) for origin in said if origin.overruled]
    notes += [f"without effect: {noted}" for noted in wishes.noted]
    keys = ", ".join(dict.fromkeys(origin.key for origin in said))
    return passed(Step.ANNOTATIONS, f"understood: {keys}" if keys else "none asks for anything else", *notes)


def _overruled(origin: Origin) -> str:
    losers = ", ".join(f"{key}: {value}" for key, value in origin.overruled)
    return f"{origin.key}: {origin.value} wins over {losers}"
