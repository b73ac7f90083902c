"""Which CNI configuration a runtime takes, and whether a mesh's plugin is in it. Pure."""

from collections.abc import Iterator
from typing import Final

from agent.doctor.facts import CniDirectory, CniFile, Facts
from agent.doctor.findings import Finding, Severity

IDS: Final = {"cni-order": "which file of the CNI directory wins, and what is chained in it"}
_MESH: Final = frozenset({"istio-cni", "linkerd-cni", "kuma-cni", "consul-cni", "headgate-cni"})
"""Types that chained plugins of meshes go by (istio cni/pkg/plugin, linkerd2 cni-plugin, kuma app/cni, consul-k8s)."""
_DELEGATING: Final = frozenset({"multus", "multus-shim"})
_ID: Final = "cni-order"


def check(facts: Facts) -> Iterator[Finding]:
    if facts.cni is not None:
        yield from _directory(facts.cni)


def _directory(cni: CniDirectory) -> Iterator[Finding]:
    if not cni.files:
        yield Finding(
            _ID,
            Severity.INFO,
            f"directory {cni.path}",
            "there is no CNI configuration",
            "a runtime that reads this directory makes no pod network",
            "none needed where the runtime takes its network from elsewhere; else install a CNI plugin",
        )
        return
    winner, *others = cni.files
    where = f"file {cni.path}/{winner.name}"
    if winner.problem:
        yield Finding(
            _ID,
            Severity.SERIOUS,
            where,
            f"the file that wins cannot be used: {winner.problem}",
            "runtimes take the first by name: containerd makes no pod until it is repaired, cri-o takes the next one, "
            "without what was chained in this one",
            "repair the file, or move it out of the directory",
        )
    elif others:
        yield Finding(
            _ID,
            Severity.INFO,
            where,
            f"this file wins ({', '.join(winner.plugins)}); {', '.join(file.name for file in others)} are not read",
            "runtimes take the first by name",
            "none needed, if that is what is meant",
        )
    yield from _unread(cni, winner, others)
    yield from _misplaced(where, winner)


def _unread(cni: CniDirectory, winner: CniFile, others: list[CniFile]) -> Iterator[Finding]:
    for file in others:
        lost = [kind for kind in file.plugins if kind in _MESH and kind not in winner.plugins]
        if lost:
            delegates = bool(_DELEGATING & set(winner.plugins))
            yield Finding(
                _ID,
                Severity.WARNING if delegates else Severity.SERIOUS,
                f"file {cni.path}/{file.name}",
                f"{', '.join(lost)} is chained here, and {winner.name} wins"
                + (", which may hand on to this one" if delegates else ""),
                "pods start without the rules that the plugin is there to make (istio #56156, linkerd2 #12490)",
                f"chain it in {winner.name}, or remove the file that is in front",
            )


def _misplaced(where: str, winner: CniFile) -> Iterator[Finding]:
    meshes = [kind for kind in winner.plugins if kind in _MESH]
    if meshes and winner.plugins[0] in _MESH:
        yield Finding(
            _ID,
            Severity.SERIOUS,
            where,
            f"{winner.plugins[0]} comes first, before any plugin that makes an interface",
            "a chained plugin takes up what the one before it made: it fails here, and with it every pod",
            "put it behind the network's own plugin, at the end of `plugins`",
        )
    if len(meshes) > 1:
        yield Finding(
            _ID,
            Severity.WARNING,
            where,
            f"plugins of {len(meshes)} meshes are chained: {', '.join(meshes)}",
            "both make rules in a pod that both take for theirs, and only one can be the first to redirect",
            "uninstall the mesh that is no longer used, and restart the pods that it made rules in",
        )
