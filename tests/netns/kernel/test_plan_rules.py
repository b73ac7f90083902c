"""Every wish and both modes, in the kernel: what a plan loads is what is read back, compiled or not, and a list with
one element more or less is drift. Which packets it takes is proved in tests/netns/cases."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from agent.kernel import held, iproute, nft, nft_replay
from agent.plan import RedirectPlan, Steering, plan_of
from agent.plan.drift import Form
from agent.plan.ranges import Ranges
from agent.plan.render.nft import ANCHOR_TABLE, TABLE, drain_script, install_script
from agent.plan.rules import IPFamily
from agent.plan.steering import DnsCapture, UdpPolicy
from tests.golden.agent.steerings import DEFAULT, EVERYTHING, NODE, SIDECAR, SIDECAR_OF_MANY, TRANSPARENT_SIDECAR
from tests.netns.kernel.drift import handle
from tests.netns.kernel.scratch import Scratch

MANY = Steering(
    exclude_outbound_ports=Ranges.of(*range(20001, 20501, 2)),
    exclude_outbound_networks=tuple(ip_network(f"10.{100 + i}.0.0/17") for i in range(125))
    + tuple(ip_network(f"fd00:{i:x}::/33") for i in range(125)),
)
"""500 exclusions, no two of which touch."""
REST = Steering(
    exclude_gids=Ranges.of(7), families=(IPFamily.IPV4,), dns=DnsCapture(), udp=UdpPolicy.DENY, drop_invalid=True
)
PLANS = {
    f"{mode}-{name}": plan_of(wanted, settings)
    for mode, settings in (
        ("node", NODE),
        ("sidecar", SIDECAR),
        ("sidecar-of-many", SIDECAR_OF_MANY),
        ("transparent", TRANSPARENT_SIDECAR),
    )
    for name, wanted in (("default", DEFAULT), ("everything", EVERYTHING), ("rest", REST), ("many", MANY))
}
each_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


@pytest.fixture
def pod() -> Iterator[Scratch]:
    with Scratch() as pod:
        yield pod


def install(pod: Scratch, plan: RedirectPlan, *, replace: bool = False) -> None:
    pod.run(nft.apply, install_script(plan, (), replace=replace))
    pod.run(iproute.ensure_return_path, plan.return_path)


@each_plan
def test_what_is_loaded_is_found_to_be_the_plan_and_every_rule_has_its_counter(
    pod: Scratch, plan: RedirectPlan
) -> None:
    install(pod, plan)
    assert pod.run(held.compare, held.expectation(plan, Form.STEERING)) == held.Found((), ())
    counters = (*pod.run(nft.list_counters, ANCHOR_TABLE), *pod.run(nft.list_counters, TABLE))
    assert sorted(counter.rule_id for counter in counters) == sorted(rule.rule_id for rule in plan.all_rules)


@each_plan
def test_what_is_compiled_is_the_same(pod: Scratch, plan: RedirectPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    script = install_script(plan, (), replace=False)
    expected = held.expectation(plan, Form.STEERING)
    assert nft_replay._transaction(script) is not None
    monkeypatch.setattr(nft, "apply", lambda _: pytest.fail("fell back on libnftables"))
    pod.run(nft_replay.apply_fresh, script)
    pod.run(iproute.ensure_return_path, plan.return_path)
    assert pod.run(held.compare, expected) == held.Found((), ())


@each_plan
def test_a_plan_takes_the_place_of_another_and_its_drain_form_of_it(pod: Scratch, plan: RedirectPlan) -> None:
    install(pod, PLANS["node-everything"])
    install(pod, plan, replace=True)
    assert pod.run(held.compare, held.expectation(plan, Form.STEERING)).changes == ()
    pod.run(nft.apply, drain_script(plan))
    assert pod.run(held.compare, held.expectation(plan, Form.DRAIN)).changes == ()


def test_b43_an_element_more_and_one_less_of_a_list_is_drift_and_named(pod: Scratch) -> None:
    plan = PLANS["node-many"]
    install(pod, plan)
    listing = pod.run(nft.list_table, TABLE)
    assert listing is not None
    (rule,) = (line.strip() for line in listing.splitlines() if "out-capture-skip-ports" in line)
    tampered = rule.replace("20003, ", "").replace("20499 }", "20499, 30000-30002 }")
    number = handle(pod, TABLE, "nat-output", "out-capture-skip-ports")
    # nft 1.0.6 aborts on `replace rule` with an interval set (evaluate.c, interval_set_eval): no script of ours has it.
    chain = f"rule inet {TABLE} nat-output handle {number}"
    pod.run(nft.apply, f"add {chain} {tampered}\ndelete {chain}\n")
    found = pod.run(held.compare, held.expectation(plan, Form.STEERING))
    assert found.changes == ("rule out-capture-skip-ports is changed: its set lacks 20003 and has 30000-30002",)


def test_a_hostile_looking_interface_name_stays_a_name(pod: Scratch) -> None:
    plan = plan_of(Steering(exclude_interfaces=("accept", "counter", "eth0@x-", "0x1", "drop+")), NODE)
    install(pod, plan)
    listing = pod.run(nft.list_table, TABLE)
    assert listing is not None
    assert 'iifname { "0x1", "accept", "counter", "drop*", "eth0@x-" } counter' in listing
