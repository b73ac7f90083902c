"""What the admin socket tells of pods and policy, as JSON values."""

from typing import Any

from proxy.config.text import render_rejection
from proxy.model.snapshot import Rejection
from proxy.supervisor.handovers import ServedPod
from proxy.supervisor.pods import PendingPod


def served_answer(pod: ServedPod, known: bool) -> dict[str, Any]:
    """`known`: the pod's own object has come; until then its connections wait."""
    state = "served" if known else "waiting for its object"
    return {
        "uid": pod.identity.uid,
        "namespace": pod.identity.namespace,
        "name": pod.identity.name,
        "service_account": pod.identity.service_account,
        "state": state if pod.served.is_set() else "handing over",
        "workers": sorted(pod.workers),
        "netns_cookie": pod.identity.netns_cookie,
        "listeners": [{"direction": kind.direction.value, "family": kind.family} for kind in pod.listeners.kinds],
    }


def pending_answer(pod: PendingPod) -> dict[str, Any]:
    return {
        "uid": pod.name.uid,
        "namespace": pod.name.namespace,
        "name": pod.name.name,
        "service_account": pod.name.service_account,
        "state": "pending",
        "reason": pod.reason,
    }


def rejection_answer(rejection: Rejection) -> dict[str, Any]:
    return {
        "object": rejection.object,
        "field": rejection.field,
        "reason": rejection.reason,
        "stale": rejection.stale,
        "text": render_rejection(rejection),
    }
