"""B52: a pod that ends by itself. It is let go of at once, nothing of ours keeps it, and its address is another's."""

from __future__ import annotations

from ipaddress import ip_address

from agent.lab.namespaces import Netns
from tests.netns.containerd.asked import Container
from tests.netns.life import kernel
from tests.netns.lifecycle import web
from tests.netns.lifecycle.node import Node

STEERED_PORTS = (15001, 15006)


def test_b52_a_job_ends_is_let_go_of_and_its_address_goes_to_another_pod_which_late_events_do_not_touch(
    steered: Node,
) -> None:
    job = steered.run("job", Container("work", ("/bin/sh", "-c", "sleep 1; exit 0")))
    steered.wait_proved("job")
    netns = steered.netns(job.pod)
    assert all(f":{port}" in _listeners(netns) for port in STEERED_PORTS)
    steered.wait("the job to end", lambda: steered.runtime.exit_code(job.containers[0]) == 0)
    steered.tell(job.pod, job.sandbox.addresses, phase="Succeeded")
    steered.wait("it to be let go of", lambda: steered.is_out("job"))
    steered.wait("rules and listeners to be gone", lambda: (kernel.rules(netns), _listeners(netns)) == ("", ""))
    assert "15001" not in kernel.routing(netns) and "lookup 100" not in kernel.routing(netns)
    steered.runtime.stop(job.sandbox)

    steered.next_address(ip_address(job.sandbox.addresses[0]))
    heir = steered.run("heir", web.sleeper())
    assert heir.sandbox.addresses[0] == job.sandbox.addresses[0]
    steered.wait_proved("heir")
    held = kernel.rules(steered.netns(heir.pod))
    for phase in ("Running", "Succeeded"):  # late, out of order, and with the address that is another's now
        steered.tell(job.pod, job.sandbox.addresses, phase=phase)
    steered.api.delete("Pod", "job")
    steered.wait("the agent to have heard of it", lambda: "job" not in {**steered.pods(), **steered.reasons()})
    assert steered.pods()["heir"] == "proved"
    assert kernel.rules(steered.netns(heir.pod)) == held


def test_b52_a_job_that_calls_through_the_mesh_ends_with_its_own_exit_code(steered: Node) -> None:
    there = web.serve(steered)
    ask = "wget -q -O - http://10.96.0.10/ >/dev/null || exit 3; exit 7"
    job = steered.run("job", Container("work", ("/bin/sh", "-c", ask)))
    steered.wait("the job to end", lambda: steered.runtime.exit_code(job.containers[0]) is not None)
    assert steered.runtime.exit_code(job.containers[0]) == 7
    steered.tell(job.pod, job.sandbox.addresses, phase="Failed")
    steered.wait("it to be let go of", lambda: steered.is_out("job"))
    assert {name for name, state in steered.pods().items() if state == "proved"} == {one.pod.name for one in there.all}


def _listeners(netns: Netns) -> str:
    return netns.run(["ss", "-Hltn"]).stdout
