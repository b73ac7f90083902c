"""The DaemonSets' containers as a kubelet asks a runtime for them: what the manifest says and nothing else, on a node
whose directories lie elsewhere than a real one's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agent.lab.node import headgate
from tests.kube.manifests.rendered import ROOT
from tests.netns.containerd import image
from tests.netns.containerd.asked import Container, Mount, Security

NODE_NAME: Final = "node-1"
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
IMAGE: Final = os.environ.get("HEADGATE_IMAGE", "")
"""An archive that `make image` made: then the containers are of it, and see nothing of this machine. Else this
machine's own programs stand for an image, and headgate as it is here."""
_PLUGIN: Final = "/host/plugin/headgate-cni"
"""/usr is this machine's, and holds no plugin."""
_HERE: Final = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/iproute2", "/usr")


@dataclass(frozen=True, slots=True)
class Places:
    """`host_paths`: where the node has what the manifest names. `account`: the service account's files. `plugin`: the
    CNI plugin's program. `server`: the API server's address and port."""

    host_paths: Mapping[str, str]
    account: Path
    plugin: Path
    server: tuple[str, int]


def containers(spec: Mapping[str, Any], places: Places, instead: Mapping[str, Sequence[str]]) -> list[Container]:
    """Of a pod's spec, init containers first. `instead`: by verb, arguments that take the place of those of the same
    name."""
    listed = (*spec.get("initContainers", ()), *spec["containers"])
    return [_container(one, spec, places, instead) for one in listed]


def _container(
    wanted: Mapping[str, Any], spec: Mapping[str, Any], places: Places, instead: Mapping[str, Sequence[str]]
) -> Container:
    volumes = {one["name"]: places.host_paths[one["hostPath"]["path"]] for one in spec["volumes"]}
    mounts = [_mount(one, volumes) for one in wanted.get("volumeMounts", ())]
    if spec.get("automountServiceAccountToken"):
        mounts.append(Mount(str(places.account), _ACCOUNT, readonly=True))
    made = Container(
        wanted["name"],
        tuple(wanted.get("command", ())),
        image=wanted["image"],
        arguments=_replaced(wanted["args"], instead.get(wanted["args"][0], ())),
        environment=_environment(wanted, places),
        mounts=tuple(mounts),
        security=_security(wanted["securityContext"], spec["securityContext"]),
    )
    return made if IMAGE else _of_this_machine(made, places)


def _of_this_machine(wanted: Container, places: Places) -> Container:
    assert not wanted.words, "the image's entrypoint is what is known to be here"
    here = dict.fromkeys((*(path for path in _HERE if Path(path).exists()), str(ROOT), sys.prefix))
    mounts = [*(Mount(path, path, readonly=True) for path in here), Mount(str(places.plugin), _PLUGIN, readonly=True)]
    environment = {key: value for key in ("PYTHONPATH",) if (value := os.environ.get(key))}
    environment |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", **dict(wanted.environment)}
    if "HEADGATE_CNI_PLUGIN" in environment:
        environment["HEADGATE_CNI_PLUGIN"] = _PLUGIN
    return replace(
        wanted,
        words=tuple(headgate()),
        image=image.HERE,
        environment=tuple(environment.items()),
        mounts=(*mounts, *wanted.mounts),
    )


def _mount(wanted: Mapping[str, Any], volumes: Mapping[str, str]) -> Mount:
    follows = wanted.get("mountPropagation") == "HostToContainer"
    return Mount(volumes[wanted["name"]], wanted["mountPath"], wanted.get("readOnly", False), follows)


def _replaced(arguments: Sequence[str], instead: Sequence[str]) -> tuple[str, ...]:
    names = {one.partition("=")[0] for one in instead}
    return (*(one for one in arguments if one.partition("=")[0] not in names), *instead)


def _environment(wanted: Mapping[str, Any], places: Places) -> tuple[tuple[str, str], ...]:
    asked = (one for one in wanted.get("env", ()) if not _is_left_out(one))
    found = {one["name"]: _value(one) for one in asked}
    host, port = places.server
    server = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
    return tuple({**server, **found}.items())


def _is_left_out(wanted: Mapping[str, Any]) -> bool:
    """Of a ConfigMap that only an overlay brings."""
    return bool(wanted.get("valueFrom", {}).get("configMapKeyRef", {}).get("optional"))


def _value(wanted: Mapping[str, Any]) -> str:
    """Of the fields a manifest may name it is this one that ours do."""
    if "value" in wanted:
        return str(wanted["value"])
    return {"spec.nodeName": NODE_NAME}[wanted["valueFrom"]["fieldRef"]["fieldPath"]]


def _security(wanted: Mapping[str, Any], of_pod: Mapping[str, Any]) -> Security:
    capabilities = wanted["capabilities"]
    return Security(
        wanted["runAsUser"],
        tuple(capabilities.get("add", ())),
        drop_all=capabilities["drop"] == ["ALL"],
        readonly_root=wanted["readOnlyRootFilesystem"],
        no_new_privs=not wanted["allowPrivilegeEscalation"],
        seccomp=of_pod["seccompProfile"]["type"] == "RuntimeDefault",
    )
