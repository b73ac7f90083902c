"""Which pods are led through the proxy."""

from typing import Final

from agent.pods.pod import PodRef

MESH_LABEL: Final = "headgate.io/mesh"
_DISABLED: Final = "disabled"


def wants_mesh(pod: PodRef) -> bool:
    """True unless its source leaves the pod out, or the pod's label `headgate.io/mesh` is `disabled`.

    Some sources tell of pods that were put into their hands (a pods file, the node's named namespaces), so an absent
    label means yes there. Only the exact word takes a pod out: a misspelt value must not silently bypass the mesh.
    """
    return not pod.left_out and pod.label(MESH_LABEL) != _DISABLED
