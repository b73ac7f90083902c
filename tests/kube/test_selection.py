"""Which pods are selected, and what is said of those that are not."""

import pytest

from agent.pods.selection import OURS, Candidate, Mark, Selection, left_out, unselectable

AMBIENT = Mark("istio.io/dataplane-mode", "ambient")
BOTH = Selection((OURS, AMBIENT))
ON = (("headgate.io/mesh", "enabled"),)
OFF = (("headgate.io/mesh", "disabled"),)


@pytest.mark.parametrize(
    ("pod", "namespace"),
    [
        (ON, ()),
        ((), ON),
        (ON, OFF),
        (((AMBIENT.key, "ambient"),), ()),
        ((), ((AMBIENT.key, "ambient"),)),
        ((*ON, (AMBIENT.key, "none")), ()),
    ],
    ids=["pod", "namespace", "the pod's own word first", "another mesh's", "its namespace's", "ours before others'"],
)
def test_selected(pod: tuple[tuple[str, str], ...], namespace: tuple[tuple[str, str], ...]) -> None:
    assert (unselectable(Candidate("shop", pod), BOTH), left_out(Candidate("shop", pod), namespace, BOTH)) == ("", "")


@pytest.mark.parametrize(
    ("pod", "namespace", "reason"),
    [
        (Candidate("shop", ()), (), "neither the pod nor namespace shop has headgate.io/mesh=enabled"),
        (Candidate("shop", OFF), ON, "the pod says headgate.io/mesh: disabled"),
        (Candidate("shop", (("headgate.io/mesh", "Enabled"),)), ON, "the pod says headgate.io/mesh: Enabled"),
        (Candidate("shop", ((AMBIENT.key, "none"),)), ON, "the pod says istio.io/dataplane-mode: none"),
        (Candidate("shop", (*OFF, (AMBIENT.key, "ambient"))), (), "the pod says headgate.io/mesh: disabled"),
        (Candidate("kube-system", ON), (), "namespace kube-system is excluded"),
        (Candidate("shop", ON, host_network=True), (), "is on the host's network: rules for it would steer the node"),
        (Candidate("shop", ON, sidecar="istio-proxy"), (), "has a proxy of its own: container istio-proxy"),
    ],
)
def test_left_out(pod: Candidate, namespace: tuple[tuple[str, str], ...], reason: str) -> None:
    assert (unselectable(pod, BOTH) or left_out(pod, namespace, BOTH)).startswith(reason)
