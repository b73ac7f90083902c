"""The rendered manifests with an operator's image and namespace in them; and what takes them away again. Pure."""

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from agent.printable import printable

NAMESPACE: Final = "headgate-system"
IMAGE: Final = "headgate:0.1.0"
"""What daemonset/base says: no registry's, for it has to be on the nodes, or --image names where it can be had."""
AGENT: Final = "headgate-agent"

_NAMESPACE: Final = re.compile(r"(?<![a-z0-9-])headgate-system(?![a-z0-9-])")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_THE_CLUSTERS: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
_MAX_REFERENCE: Final = 512
_REFERENCE: Final = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
    r"(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?P<tag>:\w[\w.-]{0,127})?(?P<digest>@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
"""github.com/distribution/reference, regexp.go."""
_CNI: Final = "HEADGATE_CNI_"
_PROC: Final = "/host/proc"
_DUTIES: Final = ("HEADGATE_REPAIR", "HEADGATE_TAINT")
"""An agent that leaves mends no pod of a mesh that is going, and calls no node ready for it."""


class InvalidChoice(Exception):
    """What was chosen, why it cannot be, and what can."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`image`: for every container. Raises InvalidChoice."""

    image: str = IMAGE
    namespace: str = NAMESPACE

    def __post_init__(self) -> None:
        matched = _REFERENCE.fullmatch(self.image) if len(self.image) <= _MAX_REFERENCE else None
        image, namespace = printable(self.image, 80), printable(self.namespace, 80)
        if matched is None:
            raise InvalidChoice(f"image {image}: is no reference; give [REGISTRY/]NAME:TAG or NAME@DIGEST")
        if not matched["tag"] and not matched["digest"]:
            raise InvalidChoice(f"image {image}: names no version, so nodes could run several; add a :TAG or @DIGEST")
        if not _LABEL.fullmatch(self.namespace):
            raise InvalidChoice(f"namespace {namespace}: is no label by RFC 1123: a-z, 0-9 and -, 63 at most")
        if self.namespace in _THE_CLUSTERS:
            raise InvalidChoice(
                f"namespace {namespace}: is the cluster's own, and its pod security would be lowered; give one "
                "that holds nothing else"
            )


def installed(rendered: str, choice: Choice) -> str:
    """YAML for `kubectl apply -f -`."""
    return _written(_chosen(rendered, choice))


def leaving(rendered: str, choice: Choice) -> str:
    """The agent's DaemonSet as it is before its end, YAML for `kubectl apply -f -`.

    The order on each node is the DaemonSet's: the former agent has ended (it would put the plugin back), then the
    plugin goes (until then no pod starts), then an agent runs that takes the rules away when it is ended itself.
    """
    return _written([_leaving(one) for one in _chosen(rendered, choice) if _is_agent(one)])


def remaining(rendered: str, choice: Choice) -> str:
    """All but the agent's DaemonSet, what needs others first, YAML for `kubectl delete -f -`. A namespace of another
    name than ours may have been there before: it is left."""
    others = [one for one in _chosen(rendered, choice) if not _is_agent(one)]
    if choice.namespace != NAMESPACE:
        others = [one for one in others if one["kind"] != "Namespace"]
    return _written(others[::-1])


def _chosen(rendered: str, choice: Choice) -> list[dict[str, Any]]:
    return [_replaced(one, choice) for one in yaml.safe_load_all(rendered)]


def _replaced(value: Any, choice: Choice) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, choice) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, choice) for inner in value]
    if not isinstance(value, str):
        return value
    return choice.image if value == IMAGE else _NAMESPACE.sub(choice.namespace, value)


def _is_agent(one: dict[str, Any]) -> bool:
    return bool(one["kind"] == "DaemonSet" and one["metadata"]["name"] == AGENT)


def _leaving(daemonset: dict[str, Any]) -> dict[str, Any]:
    spec = daemonset["spec"]
    pod = spec["template"]["spec"]
    (agent,) = pod["containers"]
    cni = {one["name"].removeprefix(_CNI): one["value"] for one in agent["env"] if one["name"].startswith(_CNI)}
    ends = {
        **agent,
        "args": [*agent["args"], "--cleanup-on-exit"],
        "env": [one for one in agent["env"] if not one["name"].startswith((_CNI, *_DUTIES))],
    }
    changed = {**pod, "containers": [ends]}
    if cni:
        changed["initContainers"] = [_unchaining(agent, cni["CONF_DIR"], cni["BIN_DIR"])]
    template = {**spec["template"], "spec": changed}
    # All nodes at once: none waits for another one's agent, and between the two no pod starts there.
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}}
    return {**daemonset, "spec": {**spec, "updateStrategy": strategy, "template": template}}


def _unchaining(agent: dict[str, Any], conf_dir: str, bin_dir: str) -> dict[str, Any]:
    mounts = [one for one in agent["volumeMounts"] if one["mountPath"] in {conf_dir, bin_dir, _PROC}]
    capabilities = {"drop": ["ALL"]}
    return {
        "name": "cni-remove",
        "image": agent["image"],
        "imagePullPolicy": agent["imagePullPolicy"],
        "args": ["cni", "remove", f"--conf-dir={conf_dir}", f"--bin-dir={bin_dir}", f"--proc={_PROC}"],
        "securityContext": {**agent["securityContext"], "capabilities": capabilities},
        "volumeMounts": mounts,
    }


def _written(documents: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, width=120)
