"""The return path and the addresses of a namespace, checked with iproute2's own eyes."""

import pytest

from agent.kernel import iproute
from agent.kernel.refused import KernelRefused
from agent.plan import IPFamily, ReturnPath
from tests.netns.kernel.scratch import POD4, POD6, Scratch, pod_and_node

PATH = ReturnPath(mark=0x111, mask=0xFFF, table=100, preference=32764)
BOTH = (IPFamily.IPV4, IPFamily.IPV6)


def rules(pod: Scratch, family: str) -> list[str]:
    return [line for line in pod.shell("ip", family, "rule").splitlines() if line.startswith("32764:")]


def routes(pod: Scratch, family: str) -> str:
    return pod.shell("ip", family, "route", "show", "table", "all").strip()


def test_rule_and_route_of_both_families_and_lo_up() -> None:
    with Scratch() as pod:
        assert not pod.run(iproute.return_path_present, PATH)
        assert pod.run(iproute.ensure_return_path, PATH).present == BOTH
        assert pod.run(iproute.return_path_present, PATH)
        for family in ("-4", "-6"):
            assert rules(pod, family) == ["32764:\tfrom all fwmark 0x111/0xfff lookup 100"]
            assert "local default dev lo table 100" in routes(pod, family)
        assert "LOOPBACK,UP" in pod.shell("ip", "link", "show", "lo")


def test_marked_packet_to_a_foreign_address_is_routed_to_this_namespace() -> None:
    with pod_and_node() as (pod, _):
        pod.run(iproute.ensure_return_path, PATH)
        for foreign in ("192.0.2.7", "2001:db8::7"):
            for mark in ("0x111", "0xabc111"):
                route = pod.shell("ip", "route", "get", foreign, "mark", mark)
                assert route.startswith(f"local {foreign} ") and "dev lo table 100" in route


def test_b41_twice_is_as_once() -> None:
    with Scratch() as pod:
        pod.run(iproute.ensure_return_path, PATH)
        once = [(rules(pod, family), routes(pod, family)) for family in ("-4", "-6")]
        assert pod.run(iproute.ensure_return_path, PATH).present == BOTH
        assert [(rules(pod, family), routes(pod, family)) for family in ("-4", "-6")] == once


def test_remove_leaves_what_is_not_ours_and_tolerates_absence() -> None:
    with pod_and_node() as (pod, _):
        pod.shell("ip", "rule", "add", "preference", "99", "fwmark", "0x1", "lookup", "100")
        pod.shell("ip", "route", "add", "192.0.2.0/24", "dev", "eth0", "table", "100")
        before = [pod.shell("ip", family, *what) for family in ("-4", "-6") for what in (("rule",), ("route",))]
        table = pod.shell("ip", "route", "show", "table", "100")
        pod.run(iproute.ensure_return_path, PATH)
        pod.run(iproute.remove_return_path, PATH)
        pod.run(iproute.remove_return_path, PATH)
        assert before == [pod.shell("ip", family, *what) for family in ("-4", "-6") for what in (("rule",), ("route",))]
        assert pod.shell("ip", "route", "show", "table", "100") == table
        assert not pod.run(iproute.return_path_present, PATH)


@pytest.mark.parametrize(
    "loss",
    [
        ("ip", "rule", "del", "preference", "32764"),
        ("ip", "-6", "rule", "del", "preference", "32764"),
        ("ip", "route", "flush", "table", "100"),
        ("ip", "-6", "route", "flush", "table", "100"),
        ("ip", "link", "set", "lo", "down"),
    ],
    ids=" ".join,
)
def test_b43_each_missing_part_is_seen_and_healed(loss: tuple[str, ...]) -> None:
    with Scratch() as pod:
        pod.run(iproute.ensure_return_path, PATH)
        pod.shell(*loss)
        assert not pod.run(iproute.return_path_present, PATH)
        pod.run(iproute.ensure_return_path, PATH)
        assert pod.run(iproute.return_path_present, PATH)


def test_b43_rule_of_another_mask_or_table_is_not_ours() -> None:
    with Scratch() as pod:
        pod.run(iproute.ensure_return_path, PATH)
        pod.shell("ip", "rule", "del", "preference", "32764")
        pod.shell("ip", "rule", "add", "preference", "32764", "fwmark", "0x111", "lookup", "100")
        assert not pod.run(iproute.return_path_present, PATH)


def test_b45_ipv6_off_is_told_and_nothing_of_it_stays() -> None:
    with Scratch() as pod:
        pod.shell("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
        state = pod.run(iproute.ensure_return_path, PATH)
        assert state.present == (IPFamily.IPV4,)
        ((family, reason),) = state.absent
        assert family is IPFamily.IPV6 and "IPv6 is off" in reason
        assert rules(pod, "-6") == []
        assert pod.run(iproute.return_path_present, PATH)
        pod.run(iproute.remove_return_path, PATH)
        assert rules(pod, "-4") == []


def test_refusal_takes_back_what_was_added() -> None:
    with Scratch() as pod:
        impossible = ReturnPath(mark=0x111, mask=0xFFF, table=0, preference=32764)
        with pytest.raises(KernelRefused):
            pod.run(iproute.ensure_return_path, impossible)
        assert rules(pod, "-4") == rules(pod, "-6") == []


def test_addresses_of_all_interfaces_with_prefix_and_detection_state() -> None:
    with pod_and_node(dad=True) as (pod, _):
        found = {str(a.address): a for a in pod.run(iproute.read_interface_addresses)}
        assert found[POD4].prefix_length == 24 and not found[POD4].tentative
        assert found[POD6].prefix_length == 64 and found[POD6].tentative and not found[POD6].duplicate
        assert {"127.0.0.1", "::1"} < set(found)
        assert {str(a) for a in pod.run(iproute.read_addresses)} == set(found)
