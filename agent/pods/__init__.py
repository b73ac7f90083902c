"""Which pods exist and which of them are ours: values and enrolment rules, no IO.

`PodRef` is what a source tells of a pod; `NetnsId` is the identity of a network namespace; `wants_mesh` is the rule
by which a pod is enrolled; `Proofs` is the evidence that it is.
"""

from agent.pods.enrolment import MESH_LABEL, wants_mesh
from agent.pods.pod import InvalidPod, IPAddress, NetnsId, Pairs, PodRef, sorted_pairs
from agent.pods.proofs import Proof, Proofs, ProofStatus

__all__ = [
    "MESH_LABEL",
    "IPAddress",
    "InvalidPod",
    "NetnsId",
    "Pairs",
    "PodRef",
    "Proof",
    "ProofStatus",
    "Proofs",
    "sorted_pairs",
    "wants_mesh",
]
