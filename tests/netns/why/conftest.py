"""Three nodes for all faults: one whose pods cannot be enrolled, one whose pods were, until something went wrong, and
one whose agent was killed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from agent.lab.node import Lab
from agent.lab.spec import LabSpec, PodSpec
from tests.netns.life import kernel
from tests.netns.why.asked import add_pods

MESH = "headgate.io/mesh"


@pytest.fixture(scope="module")
def unenrolled() -> Iterator[Lab]:
    """An agent without a proxy; each pod but `plain` has a fault of its own."""
    spec = LabSpec(
        (
            PodSpec("plain"),
            PodSpec("disabled", labels=((MESH, "disabled"),)),
            PodSpec("misspelt", labels=((MESH, "disable"),)),
            PodSpec("unread", annotations=(("headgate.io/exclude-outbound-ports", "80,http"),)),
            PodSpec(
                "contradicting",
                annotations=(("headgate.io/include-inbound-ports", "80"), ("headgate.io/exclude-inbound-ports", "80")),
            ),
            PodSpec("elsewhere", listed=False),
            PodSpec("taken-out"),
            PodSpec("taken-in"),
        )
    )
    with Lab(spec) as lab, ExitStack() as stack:
        for pod, port in (("taken-out", 15001), ("taken-in", 15006)):
            stack.enter_context(lab.pod(pod).netns.listen("0.0.0.0", port))
        no_namespace = lab.paths.directory / "no-namespace"
        no_namespace.write_text("")
        add_pods(
            lab,
            {"name": "elsewhere", "netns": lab.pod("elsewhere").netns.name, "addresses": ["10.9.9.9"]},
            {"name": "gone", "netns": "hg-of-nobody"},
            {"name": "no-namespace", "netns": str(no_namespace)},
            {"name": "host", "netns": str(lab.node.path)},
            {"name": "twin", "netns": lab.pod("plain").netns.name},
        )
        lab.start_agent()
        for name, state in (("plain", "pending"), ("taken-in", "failed"), ("host", "failed"), ("elsewhere", "failed")):
            kernel.wait_state(lab, name, state)
        for name, state in (("unread", "failed"), ("contradicting", "failed"), ("disabled", "disabled")):
            kernel.wait_state(lab, name, state)
        yield lab


@pytest.fixture(scope="module")
def enrolled_lab() -> Iterator[Lab]:
    """`client` and `server` are proved, and so is `full`, whose conntrack table a test fills. The proxy cannot serve
    `refused`, where somebody with the proxy's mark listens, and waits for the object of `unknown`: its file is broken.
    """
    spec = LabSpec((PodSpec("client"), PodSpec("server"), PodSpec("full"), PodSpec("refused"), PodSpec("unknown")))
    with Lab(spec) as lab, lab.pod("refused").netns.open_socket() as marked:
        marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x539)
        marked.bind(("0.0.0.0", 15001))
        marked.listen()
        (lab.config_directory / "pod-unknown.yaml").write_text("kind: [Pod\n")
        lab.start_agent("--objects-dir", str(lab.config_directory))
        lab.start_proxy(own_objects=False)
        lab.wait_proved("client", "server", "full")
        kernel.wait_state(lab, "refused", "pending")
        yield lab


@pytest.fixture
def lab(enrolled_lab: Lab) -> Iterator[Lab]:
    """What a test breaks it puts right, or the agent does; `client` is proved again before the next."""
    yield enrolled_lab
    enrolled_lab.wait("the proxy", lambda: enrolled_lab.agent_get("/pods")["proxy_connected"] is True)
    until_proved(enrolled_lab)


def until_proved(lab: Lab) -> None:
    """`client` at once, and not when the agent tries again."""
    lab.wait("client to be proved", lambda: verified(lab, "client")["state"] == "proved")
    lab.wait_proved("client", "server")


def verified(lab: Lab, pod: str) -> dict[str, Any]:
    return dict(lab.agent_get(f"/pods/default/{pod}/verify", method="POST", timeout_s=20))


@pytest.fixture(scope="module")
def agentless() -> Iterator[Lab]:
    """Its agent was killed when all pods were proved; each has the name of what a test does to it, but `untouched`."""
    names = ("table-deleted", "ip-rule-gone-v4", "ip-rule-gone-v6", "ruleset-flushed", "foreign-rule-inserted")
    with Lab(LabSpec(tuple(PodSpec(name) for name in ("untouched", *names)))) as lab:
        lab.start()
        lab.kill_agent()
        yield lab
