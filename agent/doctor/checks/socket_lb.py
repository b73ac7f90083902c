"""Programs that change where a socket connects to before any rule sees a packet. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import NODE, AttachedProgram, Facts
from agent.doctor.findings import Finding, Severity

IDS: Final = {"socket-lb": "bpf programs on connect(2): Cilium's socket LB, other meshes"}
_CILIUM: Final = ("cil_sock", "sock4_", "sock6_", "bpf_sock")
"""cilium bpf/bpf_sock.c; of before 1.12 without the prefix. The kernel keeps 15 characters of a name."""


def check(facts: Facts) -> Iterator[Finding]:
    if facts.programs is None or not facts.programs.programs:
        return
    cilium = [program for program in facts.programs.programs if program.name.startswith(_CILIUM)]
    others = [program for program in facts.programs.programs if program not in cilium]
    if cilium:
        yield _of_cilium(cilium, facts.programs.cilium_host_only)
    if others:
        yield Finding(
            "socket-lb",
            Severity.WARNING,
            NODE,
            f"bpf programs are attached to {_hooks(others)}: {_names(others)}",
            "who attached them may change where a pod's sockets connect to (Merbridge, Kmesh do): rules, policy and "
            "what is shown as the original destination then go by an address that the application never asked for",
            "find out whose they are (bpftool cgroup tree), and detach those of a mesh that is no longer used",
        )


def _of_cilium(programs: list[AttachedProgram], host_only: bool | None) -> Finding:
    what = f"Cilium's socket LB is attached to {_hooks(programs)} ({_names(programs)})"
    why = (
        "it replaces a Service's address by a pod's inside connect(2): the mesh never sees the Service, and routes, "
        "splits and retries of that Service do not apply (cilium #13882, #16583, #28304)"
    )
    remedy = "helm upgrade cilium --set socketLB.hostNamespaceOnly=true, and restart Cilium's pods"
    if host_only:
        return Finding(
            "socket-lb", Severity.INFO, NODE, f"{what}, for the node's own namespace only", why, "none needed"
        )
    if host_only is None:
        seen = f"{what}; whether it leaves pods alone is not to be seen from here"
        check = f"{remedy}; or see that cilium config view has bpf-lb-sock-hostns-only true"
        return Finding("socket-lb", Severity.WARNING, NODE, seen, why, check)
    return Finding("socket-lb", Severity.SERIOUS, NODE, f"{what}, in pods too", why, remedy)


def _hooks(programs: list[AttachedProgram]) -> str:
    return ", ".join(dict.fromkeys(program.hook for program in programs))


def _names(programs: list[AttachedProgram]) -> str:
    return ", ".join(dict.fromkeys(f"{program.name or 'without a name'} (id {program.id})" for program in programs))
