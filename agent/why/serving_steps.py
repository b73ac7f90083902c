"""Whether a proxy serves the pod, and has the policy to do so. Pure."""

from typing import Final

from agent.why.facts import Agent, Facts, Netns, NoAnswer, Pod, Proxy, Served, Silence, Unknown
from agent.why.verdict import Result, Step, Verdict, failed, headgate, passed, silent, skipped, unknown
from proxy.api.constants import INBOUND_PORT, OUTBOUND_PORT, ZDS_SOCKET

_NACKED: Final = "the proxy refused the pod: "
"""agent.reconcile.entering: how a pending pod's reason begins."""
_UNENROLLED: Final = frozenset({"failed", "disabled", "gone", "leaving"})
_UNDER_WAY: Final = frozenset({"seen", "located", "planned", "announced"})
_WAITS: Final = "waiting for its object"
_TOLD: Final = 5


# ── proxy ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def proxy(facts: Facts) -> Verdict:
    told = facts.pod
    if isinstance(facts.agent, Agent):
        if told is None or (told.state in _UNENROLLED and not told.installed):
            return skipped(Step.PROXY, "a pod that is not enrolled is not announced")
        if not facts.agent.proxy_connected:
            return _no_proxy(facts, told)
        if told.state == "pending":
            return _nacked(facts, told)
        if told.state in _UNDER_WAY:
            return _under_way(told)
    return _by_its_own_word(facts) or _unheard_of(facts) or _heard(facts)


def _no_proxy(facts: Facts, told: Pod) -> Verdict:
    if isinstance(facts.proxy, NoAnswer) and facts.proxy.silence is Silence.MUTE:
        return silent(Step.PROXY, "proxy", facts.proxy, _effect(told), facts.run_dir)
    found = f"no proxy is connected to the agent ({facts.run_dir}/{ZDS_SOCKET})"
    remedy = "start it on this node; it finds every pod by itself"
    if isinstance(facts.proxy, Proxy):
        found += f", and one answers in {facts.run_dir}"
        remedy = "its log says why it does not come to the agent; start it again if it says nothing"
    return failed(Step.PROXY, found, _effect(told), remedy, headgate("proxy", facts.run_dir))


def _effect(told: Pod) -> str:
    if told.capturing:
        return "the rules stay in force (fail closed): the pod's connections wait for a proxy, then they are refused"
    return (
        "nobody would answer what is led there: no rule is made before a proxy listens, and the pod goes past the mesh"
    )


def _nacked(facts: Facts, told: Pod) -> Verdict:
    own = facts.proxy.served if isinstance(facts.proxy, Proxy) else None
    reason = own.reason if own is not None and own.reason else told.reason.removeprefix(_NACKED)
    if not reason:
        return failed(Step.PROXY, "the proxy has not answered yet", _effect(told), "ask again in a few seconds")
    return failed(
        Step.PROXY,
        f"the proxy refused the pod: {reason}",
        _effect(told),
        "put right what it names (another mesh's proxy, or another headgate's, may serve this pod already); it is "
        "asked again every 5 s",
    )


def _under_way(told: Pod) -> Verdict:
    return failed(
        Step.PROXY,
        f"the pod is being enrolled: it is {told.state}, and the proxy has not answered for it yet",
        _effect(told),
        "ask again in a second; with hundreds of pods that start together, in a few",
    )


def _by_its_own_word(facts: Facts) -> Verdict | None:
    """None: it says that it serves the pod, or says nothing of use."""
    if isinstance(facts.proxy, NoAnswer) and facts.proxy.silence is Silence.MUTE:
        why = "what is led to it waits in the queues of its listeners, and is answered by nobody"
        return silent(Step.PROXY, "proxy", facts.proxy, why, facts.run_dir)
    own = facts.proxy.served if isinstance(facts.proxy, Proxy) else None
    if own is None or own.state in ("served", _WAITS):
        return None
    if own.state == "pending":
        reason = f"the proxy cannot serve the pod: {own.reason}"
        return failed(Step.PROXY, reason, "nobody answers what is led to it", "put right what it names")
    return failed(
        Step.PROXY,
        f"the proxy is {own.state}: no worker has the pod's listeners yet",
        "connections wait in the listeners' queues",
        "ask again in a few seconds; if it stays so, the proxy's log says which worker does not answer",
    )


def _unheard_of(facts: Facts) -> Verdict | None:
    """Steered to where nobody listens."""
    captured = facts.pod is not None and facts.pod.capturing
    if not (captured and isinstance(facts.netns, Netns)):
        return None
    listening = {held.port for held in facts.netns.ports}
    deaf = sorted({OUTBOUND_PORT, INBOUND_PORT} - listening)
    if not deaf:
        return None
    return failed(
        Step.PROXY,
        f"nobody listens on {' and '.join(map(str, deaf))} in the pod, and the rules lead there",
        "connections of the pod are refused (fail closed)",
        "the agent announces the pod again by itself; if it stays so, the proxy's log says why it let go of it",
        headgate("pods", facts.run_dir),
    )


def _heard(facts: Facts) -> Verdict:
    agentless = isinstance(facts.agent, NoAnswer)
    if isinstance(facts.proxy, Proxy):
        own = facts.proxy.served
        if own is None and agentless:
            return passed(Step.PROXY, f"answers in {facts.run_dir}; whether it serves the pod is not known")
        if own is None:
            return failed(
                Step.PROXY,
                f"the proxy in {facts.run_dir} does not know the pod",
                "it serves what the agent announces to it, and answers nothing else",
                "another proxy may be the agent's: see who is connected in the agent's log",
            )
        return passed(Step.PROXY, f"serves the pod by worker {', '.join(map(str, own.workers)) or '-'}")
    if agentless:
        return unknown(Step.PROXY, _no_word(facts.proxy))
    return passed(Step.PROXY, "connected, and it took the pod", f"its own word is missing: {_no_word(facts.proxy)}")


def _no_word(silence: NoAnswer | Unknown) -> str:
    if isinstance(silence, Unknown):
        return silence.reason
    return f"no answer at {silence.socket}" + (f" ({silence.detail})" if silence.detail else "")


# ── policy ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def policy(facts: Facts, before: Verdict) -> Verdict:
    """`before`: of the step `proxy`."""
    if before.result in (Result.FAILED, Result.SKIPPED):
        return skipped(Step.POLICY, "nobody serves the pod")
    if not isinstance(facts.proxy, Proxy):
        return unknown(Step.POLICY, _no_word(facts.proxy))
    known = facts.proxy
    if known.generation is None:
        return _no_policy(facts)
    late = [str(number) for number, generation in enumerate(known.in_force) if generation is None]
    if late:
        return failed(
            Step.POLICY,
            f"worker {', '.join(late)} of the proxy has no policy in force yet",
            "no policy, no service: its connections wait",
            "ask again in a few seconds; if it stays so, see the proxy's log",
        )
    if known.served is not None and known.served.state == _WAITS:
        return _no_object(facts, known.served)
    return _in_force(facts, known)


def _no_policy(facts: Facts) -> Verdict:
    objects = facts.agent.objects if isinstance(facts.agent, Agent) else None
    why = "no policy, no service: connections wait until every object is known"
    if objects is None:
        remedy = "its --config-dir must be there and readable; the proxy's log says what it could not read"
        return failed(Step.POLICY, "the proxy has no policy yet", why, remedy)
    told = "; ".join(objects.problems)
    if not objects.complete:
        found = f"the agent's objects cannot be read: {told or objects.place}"
        return failed(Step.POLICY, found, why, f"make {objects.place} readable for the agent")
    return failed(
        Step.POLICY,
        "the agent has not told the proxy of all objects yet",
        why,
        "ask again in a few seconds; if it stays so, the stream between them is slow: see both logs",
    )


def _no_object(facts: Facts, served: Served) -> Verdict:
    objects = facts.agent.objects if isinstance(facts.agent, Agent) else None
    name = facts.pod.name if facts.pod is not None else facts.asked
    found = f"the proxy waits for the pod's own object: no Pod {name} has come"
    place = "the agent's objects" if objects is None else objects.place
    if objects is not None and objects.problems:
        found += f" ({'; '.join(objects.problems[:_TOLD])})"
    return failed(
        Step.POLICY,
        found,
        "whose pod it is decides which policy holds: until then its connections wait",
        f"put the object Pod {name} into {place}, or correct the file that has it",
    )


def _in_force(facts: Facts, known: Proxy) -> Verdict:
    """What is rejected keeps nobody out of the mesh; what it asks for is not done. The pod's own namespace first."""
    namespace = (facts.pod.name if facts.pod is not None else facts.asked).partition("/")[0]
    ordered = sorted(known.rejections, key=lambda one: f" {namespace}/" not in one.object)
    notes = [f"not in force: {one.text}" for one in ordered[:_TOLD]]
    if len(ordered) > _TOLD:
        notes.append(f"and {len(ordered) - _TOLD} more: see /policy of the proxy's admin socket")
    return passed(Step.POLICY, f"generation {known.generation} is in force in every worker", *notes)
