"""Whatever is wanted, and of whatever proxy: a plan whose every rule is told in docs/rules.md and can be written down,
or a refusal that names what is wrong."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.plan import InvalidPlan, PlanSettings, RedirectPlan, Steering, drain_rule_ids, plan_of
from agent.plan.ranges import Ranges
from agent.plan.render.nft import drain_script, install_script
from agent.plan.rules import IPFamily, Protocol
from agent.plan.steering import DnsCapture, Included, OwnerPorts, Owners, UdpPolicy, VirtualInterface
from tests.golden.agent.rules_page import every_rule, general

TOLD = every_rule()

ports = st.builds(
    Ranges.of, st.integers(1, 65535), st.tuples(st.integers(1, 100), st.integers(100, 65535))
) | st.builds(Ranges)
ids = st.builds(Ranges.of, st.integers(0, 0xFFFFFFFE), st.tuples(st.just(5), st.integers(5, 5000))) | st.builds(Ranges)
networks4 = st.builds(
    lambda address, bits: IPv4Network((address, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
networks6 = st.builds(
    lambda address, bits: IPv6Network((address, bits), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)
)
networks = st.lists(networks4 | networks6, max_size=5).map(tuple)
names = st.sampled_from(("net1", "net+", "br0", "br+", "k6t-1", "eth0.7", "a" * 15, "lo", "eth0;", 'x" y', "é"))
protocols = st.frozensets(st.sampled_from(Protocol))
servers = st.none() | st.lists(st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.just(1)))
steerings = st.builds(
    Steering,
    include_inbound_ports=st.none() | ports,
    exclude_inbound_ports=ports,
    exclude_inbound_networks=networks,
    include_outbound=st.none() | st.builds(Included, ports, networks),
    exclude_outbound_ports=ports,
    exclude_outbound_networks=networks,
    exclude_uids=ids,
    exclude_gids=ids,
    include_gids=st.none() | ids,
    exclude_owner_ports=st.lists(st.builds(OwnerPorts, protocols, ports, ids), max_size=2).map(tuple),
    exclude_interfaces=st.lists(names, max_size=2).map(tuple),
    virtual_interfaces=st.lists(st.builds(VirtualInterface, names, networks), max_size=2).map(tuple),
    dns=st.none()
    | st.builds(
        DnsCapture,
        servers.map(lambda found: None if found is None else tuple(found)),
        tcp=st.booleans(),
        over_loopback=st.booleans(),
    ),
    udp=st.sampled_from(UdpPolicy),
    drop_invalid=st.booleans(),
    families=st.sampled_from(((), (IPFamily.IPV4,), (IPFamily.IPV6,), tuple(IPFamily))),
)
proxies = st.sampled_from(
    (
        PlanSettings(),
        PlanSettings(owners=Owners(Ranges.of(1337))),
        PlanSettings(owners=Owners(Ranges.of(1337), Ranges.of((1, 9)))),
        PlanSettings(owners=Owners(gids=Ranges.of(1337)), passthrough=False),
        PlanSettings(owners=Owners(Ranges.of(2102)), own_pod=False),
    )
)


def plan_or_refusal(wanted: Steering, proxy: PlanSettings) -> RedirectPlan | None:
    try:
        return plan_of(wanted, proxy)
    except InvalidPlan as refused:
        assert refused.field.split(", ")[0] in Steering.__dataclass_fields__
        assert refused.reason.isprintable()
        return None


@settings(max_examples=150, deadline=None)
@given(steerings, proxies)
def test_any_plan_is_told_and_written_and_its_drain_form_is_known(wanted: Steering, proxy: PlanSettings) -> None:
    plan = plan_or_refusal(wanted, proxy)
    if plan is None:
        return
    found = [rule.rule_id for rule in plan.all_rules]
    assert len(set(found)) == len(found)
    assert {general(rule_id) for rule_id in found} <= TOLD.keys()
    assert {rule.rule_id for rule in plan.drain} == drain_rule_ids(proxy)
    script = install_script(plan, (), replace=False)
    assert script.count('comment "headgate:') == len(found)
    assert script.isascii() and script.count('"') % 2 == 0
    assert drain_script(plan).count('comment "headgate:') == len(plan.anchor) + len(plan.drain)
