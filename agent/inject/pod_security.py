"""Namespaces that would not take an injected pod (kubernetes.io, Pod Security Standards)."""

from typing import Final

ENFORCED: Final = "pod-security.kubernetes.io/enforce"
_REFUSING: Final = frozenset({"baseline", "restricted"})


def refusal(namespace: str, level: str) -> str:
    """What is to be told when the namespace's label ENFORCED says `level`; empty when it takes such pods.

    Both levels refuse NET_ADMIN; there is no way round it but another namespace's label or no init container at all.
    """
    if level not in _REFUSING:
        return ""
    return (
        f"namespace {namespace} enforces pod security {level}, which refuses NET_ADMIN: the pods will not be created. "
        f"Label it {ENFORCED}=privileged, or use the node agent (headgate install), for which pods need no rights"
    )
