"""Stories of pods that do not get into the mesh."""

from __future__ import annotations

from typing import Final

from agent.lab.spec import PodSpec
from tests.stories.steered import ORDERS, shop
from tests.stories.telling import READY_S, Story, Telling, application


def _pending(told: Telling) -> None:
    lab = told.lab
    lab.start_agent()
    for pod in ("client", "orders"):
        told.reaches(pod, "pending")
    told.says("""
        New pods of a node stay `pending`. They work, outside the mesh.
    """)
    told.runs("headgate pods", "pending")
    told.runs("headgate why client", "FAILED proxy", status=1)
    told.says("""
        **Cause.** The proxy is not there. The agent makes no rule before a proxy listens in the pod, so a pod that is
        new goes past the mesh, but never calls a port where nobody is. Pods that were enrolled before keep their rules:
        their connections wait 30 s for the proxy, and then are refused; none goes past it.

        **Remedy.** Start it: `headgate proxy`, or look why its DaemonSet has no pod here. Nobody needs to touch the
        pods.
    """)
    lab.start_proxy("--workers", "1")
    lab.wait_proved(timeout_s=READY_S)
    told.runs("headgate pods", "proved")


def _taken(told: Telling) -> None:
    lab = told.lab
    told.serves()
    told.reaches("client", "failed")
    told.says("""
        One pod is `failed`, from its first minute; others on the node are fine.
    """)
    failed = told.runs("headgate why client", "FAILED ports", "collector", status=1)
    told.runs("headgate doctor --only proxy-port-taken -o wide 2>/dev/null | head -n 3", "listens on :: port 15001")
    assert "/proc/" in failed
    told.says("""
        **Cause.** The application listens where the proxy must. The agent looks before it makes any rule, so the pod
        works on, outside the mesh.

        **Remedy.** Move the application: `doctor` lists all pods of the node that need it. Here it is started again
        on 9411, and the agent sees it by itself.
    """)
    lab.kill("client.collector")
    lab.start_server("client", application("collector-2", "listens", "9411", ports=(9411,)))
    lab.wait_proved("client", timeout_s=READY_S)
    told.runs("headgate doctor --only proxy-port-taken 2>/dev/null")
    told.runs("headgate why client | tail -n 1", "it is proved")


_COLLECTOR: Final = application("collector", "listens", "15001", ports=(15001,))
PENDING: Final = Story("A pod stays pending", shop(), _pending, (ORDERS,))
TAKEN: Final = Story("Port 15001 is taken", (PodSpec("client", servers=(_COLLECTOR,)),), _taken)
