"""What the agent writes onto a pod's object. For people and their tools only: who reads it back may be lied to (anybody
who may annotate a pod can write it), so nothing here goes by it; the kernel is the state."""

from typing import Final

STATUS: Final = "headgate.io/status"
REASON: Final = "headgate.io/status-reason"
"""Annotations, as ambient.istio.io/redirection is one: a condition of the pod's status is the kubelet's to keep."""
TOLD: Final = frozenset({STATUS, REASON})
