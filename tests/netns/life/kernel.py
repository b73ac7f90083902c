"""What the kernel holds in a pod's namespace, as its own tools print it."""

from __future__ import annotations

import re
from typing import Any

from agent.lab.namespaces import Netns
from agent.lab.node import Lab

NO_RULES = ""


def rules(netns: Netns) -> str:
    """The ruleset with its handles and without counters: a rule that was replaced by its like has another handle."""
    return netns.run(["nft", "--stateless", "--handle", "list", "ruleset"]).stdout


def rules_and_counters(netns: Netns) -> str:
    return netns.run(["nft", "--handle", "list", "ruleset"]).stdout


def without_handles(ruleset: str) -> str:
    return re.sub(r" # handle \d+", "", ruleset)


def routing(netns: Netns) -> str:
    """Rules and the return path's table, both families."""
    parts = []
    for family in ("-4", "-6"):
        parts.append(netns.run(["ip", family, "rule"]).stdout)
        # A table that was never used is no error of the question: it holds nothing.
        parts.append(netns.run(["ip", family, "route", "show", "table", "100"], check=False).stdout)
    return "\n".join(parts)


def pod_state(lab: Lab, name: str) -> dict[str, Any]:
    return next((pod for pod in lab.agent_pods() if pod["name"] == name), {"state": "unknown", "reason": ""})


def unsteered(grandfathered: int = 0, drift: int = 0, rules_changed: int = 0) -> dict[str, int]:
    """As `headgate pods -o json` shows them."""
    return {"grandfathered": grandfathered, "drift": drift, "rules_changed": rules_changed}


def unsteered_now(lab: Lab, name: str) -> dict[str, int]:
    """After a look at the pod, which the agent takes with its proofs, each minute or when asked."""
    lab.agent_get(f"/pods/default/{name}/verify", method="POST", timeout_s=20)
    found: dict[str, int] = pod_state(lab, name)["unsteered_connections"]
    return found


def wait_state(lab: Lab, name: str, state: str, *, timeout_s: float = 20.0) -> dict[str, Any]:
    """Until the agent shows the pod in this state; its entry of GET /pods."""
    lab.wait(f"{name} to be {state}", lambda: pod_state(lab, name)["state"] == state, timeout_s=timeout_s)
    return pod_state(lab, name)


def packets(lab: Lab, pod: str) -> dict[str, int | None]:
    """Packets counted by each rule of the pod, by its id; None where the kernel does not hold the rule."""
    answer = lab.agent_get(f"/rules/default/{pod}")
    return {rule["id"]: rule["packets"] for table in answer["tables"] for rule in table["rules"]}


def packets_of(lab: Lab, pod: str, rule: str) -> int:
    return packets(lab, pod)[rule] or 0
