"""linkerd2-proxy-init's command lines mean what they mean to proxy-init, or are refused by name."""

from ipaddress import ip_network

import pytest

from agent.init.linkerd import request
from agent.init.request import Families, InitRequest, Refused, Surroundings
from agent.kernel.backends import Backend
from agent.plan import PlanSettings, plan_of
from agent.plan.ranges import Ranges
from agent.plan.steering import Owners, Steering

MUST = "--incoming-proxy-port 4143 --outgoing-proxy-port 4140 --proxy-uid 2102"
TEMPLATE = (
    f"--ipv6=false {MUST} --inbound-ports-to-ignore 4190,4191,4567,4568 --outbound-ports-to-ignore 443,6443,4567-4568"
)
"""charts/partials/templates/_proxy-init.tpl with Linkerd's own defaults."""


def asked(line: str) -> InitRequest:
    return request(line.split(), Surroundings())


def test_the_usual_template_steers_everything_but_what_it_ignores() -> None:
    asked_for = asked(TEMPLATE)
    assert asked_for.steering == Steering(
        exclude_inbound_ports=Ranges.of((4190, 4191), (4567, 4568)),
        exclude_outbound_ports=Ranges.of(443, 6443, (4567, 4568)),
    )
    assert asked_for.settings == PlanSettings(
        outbound_port=4140, inbound_port=4143, owners=Owners(Ranges.of(2102)), own_pod=False
    )
    assert asked_for.families is Families.IPV4
    assert asked_for.notes == ()


def test_the_proxys_calls_to_its_own_pod_are_never_led_to_it_again() -> None:
    """It calls the application on the pod's own address as its own user: a rule that led that to 4143 would loop."""
    asked_for = asked(MUST)
    plan = plan_of(asked_for.steering, asked_for.settings)
    assert not [rule for rule in plan.all_rules if "own-pod" in rule.rule_id or "passthrough" in rule.rule_id]
    assert plan.loopback_addresses == ()
    assert plan.return_path.families == ()


def test_only_listed_ports_are_steered_less_the_ignored_ones_in_one_word_or_several() -> None:
    asked_for = asked(f"{MUST} -r 80,8080 -r 9090 --inbound-ports-to-ignore 8080 --inbound-ports-to-ignore 1-3")
    assert asked_for.steering.include_inbound_ports == Ranges.of(80, 9090)
    assert asked_for.steering.exclude_inbound_ports == Ranges.of(8080, (1, 3))
    plan_of(asked_for.steering, asked_for.settings)


def test_both_families_unless_ipv6_is_said_to_be_off() -> None:
    assert asked(MUST).families is Families.ALL
    assert asked(f"{MUST} --ipv6").families is Families.ALL


def test_connections_from_ignored_networks_reach_the_application() -> None:
    """B26."""
    assert asked(f"{MUST} --subnets-to-ignore 10.0.0.0/8,fd00::/8").steering.exclude_inbound_networks == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
    )


@pytest.mark.parametrize(
    ("line", "owners"),
    [
        ("-u 2102 -g 2103", Owners(Ranges.of(2102), Ranges.of(2103))),
        ("-u 0 -g 2103", Owners(gids=Ranges.of(2103))),
        ("-u 2102 -g -1", Owners(Ranges.of(2102))),
    ],
)
def test_who_the_proxy_is_zero_and_less_being_nobody(line: str, owners: Owners) -> None:
    """proxy-init writes a rule for ids above zero only (addOutgoingTrafficRules)."""
    assert asked(f"-p 4143 -o 4140 {line}").settings.owners == owners


@pytest.mark.parametrize(
    ("line", "backend"),
    [
        ("", None),
        ("--iptables-mode legacy", Backend.IPTABLES_LEGACY),
        ("--iptables-mode nft", Backend.IPTABLES_NFT),
        ("--iptables-mode plain", None),
        ("--firewall-bin-path iptables-nft --firewall-save-bin-path iptables-nft-save", Backend.IPTABLES_NFT),
        ("--firewall-bin-path /usr/sbin/iptables-legacy", Backend.IPTABLES_LEGACY),
        ("--iptables-mode nft --firewall-bin-path /opt/iptables", Backend.IPTABLES_NFT),
    ],
)
def test_the_backend_is_the_one_that_proxy_init_would_take(line: str, backend: Backend | None) -> None:
    assert asked(f"{MUST} {line}").backend is backend


def test_what_is_to_be_done() -> None:
    asked_for = asked(f"{MUST} --simulate --netns /run/netns/a --timeout-close-wait-secs 3600")
    assert (asked_for.dry_run, asked_for.netns, asked_for.close_wait_s) == (True, "/run/netns/a", 3600)
    assert asked(f"{MUST} --timeout-close-wait-secs 0").close_wait_s is None


def test_what_changes_nothing_is_told_with_the_reason() -> None:
    notes = asked(f"{MUST} -w --log-format json --log-level debug").notes
    assert [note.partition(":")[0] for note in notes] == ["-w", "--log-format", "--log-level"]


@pytest.mark.parametrize(
    ("line", "flag", "reason"),
    [
        ("-o 4140 -u 2102", "--incoming-proxy-port", "must be given"),
        ("-p 4143 -u 2102", "--outgoing-proxy-port", "must be given"),
        ("-p 4143 -o 4140", "--proxy-uid", "led to it again"),
        ("-p 4143 -o 4140 -u 0", "--proxy-uid", "led to it again"),
        (f"{MUST} -u linkerd", "-u", "no user of /etc/passwd"),
        (f"{MUST} --inbound-ports-to-ignore 10-5", "--inbound-ports-to-ignore", "ends before it begins"),
        (f"{MUST} --outbound-ports-to-ignore 70000", "--outbound-ports-to-ignore", "no port"),
        (f"{MUST} --subnets-to-ignore 10.0.0.0/33", "--subnets-to-ignore", "no address and no CIDR"),
        (f"{MUST} --iptables-mode pf", "--iptables-mode", "legacy, nft or plain"),
        (f"{MUST} --firewall-bin-path /opt/iptables-next", "--firewall-bin-path", "no iptables known here"),
        (f"{MUST} --firewall-save-bin-path /bin/sh", "--firewall-save-bin-path", "no iptables known here"),
        (f"{MUST} --timeout-close-wait-secs soon", "--timeout-close-wait-secs", "no number of seconds"),
        (f"{MUST} --timeout-close-wait-secs 9999999", "--timeout-close-wait-secs", "seconds"),
        (f"{MUST} --subnet-to-ignore 10.0.0.0/8", "--subnet-to-ignore", "is --subnets-to-ignore meant?"),
    ],
)
def test_what_cannot_be_done_is_refused_with_flag_and_reason(line: str, flag: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        asked(line)
    assert refused.value.flag == flag
    assert reason in refused.value.reason
