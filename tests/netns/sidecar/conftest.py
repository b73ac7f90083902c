"""Pods with a sidecar, behind the rules of an init container."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from agent.kernel.backends import Backend
from agent.lab.namespaces import Netns
from agent.lab.node import Lab, LabPod
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.cases.wire import V4, V6, Family
from tests.netns.sidecar.rules import ISTIO, TRANSPARENT, ruled
from tests.netns.sidecar.sidecars import Kind, Sidecar, prepared


@pytest.fixture(params=[V4, V6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@dataclass(frozen=True, slots=True)
class Place:
    """A pod with rules and a sidecar's files, a neighbour without either, and where kubelet would be."""

    pod: LabPod
    peer: LabPod
    sidecar: Sidecar
    node: Netns


@pytest.fixture(scope="module", params=list(Kind), ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def backend() -> Backend:
    """A module that is about rules overrides it."""
    return Backend.NFTABLES


@pytest.fixture(scope="module")
def place(kind: Kind, backend: Backend) -> Iterator[Place]:
    with Lab(LabSpec((PodSpec("pod"), PodSpec("peer")))) as lab:
        pod = lab.pod("pod")
        words = TRANSPARENT if kind is Kind.TRANSPARENT else ISTIO
        with ruled(pod, "--backend", backend.value, *words), prepared(lab, pod, kind) as sidecar:
            yield Place(pod, lab.pod("peer"), sidecar, lab.node)
