"""What a kubelet does with a container of a pod's manifest, in a pod of the lab: its arguments, environment, rights,
read-only root and volumes as the manifest has them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.lab.node import LabPod, headgate

Container = Mapping[str, Any]

# The machine's /run and /etc as they are for this process alone; `unshare --mount` makes everything private.
_MOUNTS: Final = """
mount -t tmpfs tmpfs /run
mkdir /run/etc
cp -a /etc/. /run/etc/
mount --bind /run/etc /etc
for volume in $EMPTY_DIRS; do mkdir -p "$volume"; mount -t tmpfs -o mode=777 tmpfs "$volume"; done
[ -z "$CONFIG_MAP" ] || { mkdir -p "$CONFIG_MAP"; cp "$CONFIG_FROM"/* "$CONFIG_MAP"/; }
mount -o remount,bind,ro /
mount -o remount,bind,ro /etc
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Kubelet:
    """`spec` and `metadata` of the pod; `config_map`: a directory with the files of its only one."""

    pod: LabPod
    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]
    config_map: Path

    def container(self, name: str) -> Container:
        found = [one for key in ("initContainers", "containers") for one in self.spec[key] if one["name"] == name]
        assert len(found) == 1
        return dict(found[0])

    def command(self, container: Container) -> list[str]:
        """To be run in the pod's network namespace."""
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        empty, config = [], ""
        for mount in container.get("volumeMounts", ()):
            if "configMap" in volumes[mount["name"]]:
                config = mount["mountPath"]
            else:
                assert volumes[mount["name"]]["emptyDir"] == {}
                empty.append(mount["mountPath"])
        variables = {
            **{one["name"]: self._field(one["valueFrom"]["fieldRef"]["fieldPath"]) for one in container.get("env", ())},
            "EMPTY_DIRS": " ".join(empty),
            "CONFIG_MAP": config,
            "CONFIG_FROM": str(self.config_map),
        }
        words = [f"{name}={value}" for name, value in variables.items()]
        env, unshare, shell = (str(shutil.which(name)) for name in ("env", "unshare", "sh"))
        inside = [*_as_told(container["securityContext"]), *headgate(), *container["args"]]
        return [env, *words, unshare, "--mount", shell, "-euc", _MOUNTS, "sh", *inside]

    def _field(self, path: str) -> str:
        return {
            "metadata.name": str(self.metadata["name"]),
            "metadata.namespace": "default",
            "spec.serviceAccountName": "default",
        }[path]


def _as_told(context: Mapping[str, Any]) -> Sequence[str]:
    """By setpriv(1), as runc does it: a user other than root gets no capability, root the bounding set."""
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["runAsNonRoot"] is (context["runAsUser"] != 0)
    added = [name.lower() for name in context["capabilities"].get("add", ())]
    kept = ",".join(("-all", *(f"+{name}" for name in added)))
    identity = (f"--reuid={context['runAsUser']}", f"--regid={context['runAsGroup']}", "--clear-groups")
    return ["setpriv", *identity, "--no-new-privs", "--inh-caps=-all", f"--bounding-set={kept}"]
