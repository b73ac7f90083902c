"""What `headgate uninstall` makes of the agent, on a node: its pods keep their rules until the last agent ends, then
hold nothing."""

from __future__ import annotations

import yaml

from agent.lab.node import Lab
from agent.lab.spec import default_spec
from agent.manifests.documents import Choice, leaving
from tests.kube.manifests.rendered import container, documents


def _added() -> list[str]:
    """The arguments by which the agent that is to go differs from the one before it."""
    (found,) = yaml.safe_load_all(leaving(yaml.safe_dump_all(documents("base")), Choice()))
    (agent,) = found["spec"]["template"]["spec"]["containers"]
    return [word for word in agent["args"] if word not in container("base", "agent")["args"]]


def _tables(lab: Lab) -> dict[str, str]:
    return {name: lab.pod(name).run(["nft", "list", "tables"]).stdout for name in ("client", "web-v1", "web-v2")}


def test_rules_stay_with_the_former_agents_end_and_go_with_the_last_ones() -> None:
    with Lab(default_spec()) as lab:
        lab.start_proxy()
        lab.start_agent(cleanup_on_exit=False)
        lab.wait_ready()
        lab.wait_proved()
        steered = _tables(lab)
        assert lab.stop_agent() == 0
        assert _tables(lab) == steered
        assert all("inet headgate" in tables for tables in steered.values())
        lab.start_agent(*_added(), cleanup_on_exit=False)
        lab.wait_proved()
        assert lab.stop_agent() == 0
        assert _tables(lab) == {"client": "", "web-v1": "", "web-v2": ""}
        lab.pod("client").run(["curl", "-sf", "-o", "/dev/null", f"http://{lab.pod('web-v1').address4}:8080/"])
