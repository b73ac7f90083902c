"""What was found at one step of the way into the mesh. Values, and how steps make them."""

import shlex
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.why.facts import NoAnswer, Silence
from proxy.api.constants import RUN_DIRECTORY


class Step(Enum):
    """In the order in which a pod takes them, so that the first one that fails is the cause and not a consequence."""

    AGENT = "agent"
    POD = "pod"
    SELECTION = "selection"
    ANNOTATIONS = "annotations"
    NETNS = "netns"
    PORTS = "ports"
    PROXY = "proxy"
    RULES = "rules"
    POLICY = "policy"
    PROOFS = "proofs"
    PROBES = "probes"  # only where the agent has to do with kubelet's
    OUTSIDE = "outside"


class Result(Enum):
    PASSED = "ok"
    NOTED = "note"  # passed, and something is worth knowing
    UNKNOWN = "unknown"  # could not be looked at: `found` says why
    SKIPPED = "skipped"  # without meaning after a step that failed
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`found`: one line. Of a step that fails: `why` that stops the pod, `remedy` in words, and `commands` that do it
    where there are some."""

    step: Step
    result: Result
    found: str
    why: str = ""
    remedy: str = ""
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def passed(step: Step, found: str, *notes: str) -> Verdict:
    return Verdict(step, Result.NOTED if notes else Result.PASSED, found, notes=notes)


def unknown(step: Step, reason: str) -> Verdict:
    return Verdict(step, Result.UNKNOWN, reason)


def skipped(step: Step, reason: str) -> Verdict:
    return Verdict(step, Result.SKIPPED, reason)


def failed(step: Step, found: str, why: str, remedy: str, *commands: str, notes: tuple[str, ...] = ()) -> Verdict:
    return Verdict(step, Result.FAILED, found, why, remedy, commands, notes)


_STOPPED: Final = frozenset({"T", "t"})
"""proc(5): stopped by a signal, and by a tracer."""


_UNHEARD: Final = "it may be well, but without its word only what the kernel shows can be told"


def headgate(words: str, run_dir: str) -> str:
    """The command line, with the run directory where it is not the usual one."""
    return f"headgate {words}" + ("" if run_dir == RUN_DIRECTORY else f" --run-dir {shlex.quote(run_dir)}")


def silent(step: Step, who: str, silence: NoAnswer, why: str, run_dir: str) -> Verdict:
    """`who`: `agent` or `proxy`; `why` its silence stops the pod."""
    match silence.silence:
        case Silence.ABSENT:
            found = f"no {who} at {silence.socket}" + (f": {silence.detail}" if silence.detail else "")
            remedy = "start it, or give the --run-dir that it was started with; if it ended by itself, its log says why"
            return failed(step, found, why, remedy, headgate(who, run_dir))
        case Silence.FORBIDDEN:
            found = f"{silence.socket} cannot be opened: {silence.detail}"
            return failed(step, found, _UNHEARD, f"ask as root, or as the user that the {who} runs as")
        case Silence.MUTE:
            return _mute(step, who, silence, why)
        case Silence.STRANGE:
            found = f"the {who} at {silence.socket} answers what cannot be understood: {silence.detail}"
            return failed(step, found, _UNHEARD, f"use the `headgate` of the {who}'s own version")


def _mute(step: Step, who: str, silence: NoAnswer, why: str) -> Verdict:
    named = f"process {silence.pid}" if silence.pid else "a process that cannot be seen from here"
    found = f"the {who} ({named}) listens at {silence.socket} and does not answer: {silence.detail}"
    if silence.pid and silence.pid_state in _STOPPED:
        stopped = f"{found}; it is stopped (state {silence.pid_state})"
        return failed(step, stopped, why, "let it go on, and ask who stopped it", f"kill -CONT {silence.pid}")
    if silence.pid:
        state = f" (state {silence.pid_state})" if silence.pid_state else ""
        remedy = f"see what it waits for{state}, then restart it: rules and listeners stay meanwhile"
        return failed(step, found, why, remedy, f"cat /proc/{silence.pid}/stack")
    return failed(step, found, why, "ask on the node itself, where its process can be seen")
