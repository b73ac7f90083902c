"""`kumactl install transparent-proxy`: flags over environment over files, each with kumactl's meaning, or refused."""

from ipaddress import ip_address, ip_network

import pytest

from agent.init.accounts import Accounts
from agent.init.kuma import config_sources, is_path, request
from agent.init.kuma_config import MAX_CHARACTERS, ConfigText
from agent.init.request import Families, InitRequest, Refused, Surroundings
from agent.kernel.backends import Backend
from agent.plan import PlanSettings, plan_of
from agent.plan.ranges import Ranges
from agent.plan.rules import Protocol
from agent.plan.steering import DnsCapture, Included, OwnerPorts, Owners, Steering, VirtualInterface
from agent.plan.words import ID_MAX

AROUND = Surroundings(resolv_conf="nameserver 10.96.0.10\n")
TCP_QUERIES = OwnerPorts(frozenset({Protocol.TCP}), Ranges.of(53), Ranges.of((0, ID_MAX)))
TEMPLATE = (
    "install transparent-proxy --kuma-dp-user=5678 --ip-family-mode=dualstack --redirect-outbound-port=15001 "
    "--redirect-inbound --redirect-inbound-port=15006 --redirect-all-dns-traffic --redirect-dns-port=15053 --verbose"
)
"""What pkg/transparentproxy/kubernetes writes for the init container with Kuma's own defaults."""


def asked(line: str = "", config: str = "", around: Surroundings = AROUND, **environ: str) -> InitRequest:
    return request(line.split(), environ, around, [ConfigText("--config", config)] if config else [])


def test_the_usual_template_steers_everything_and_queries_over_udp() -> None:
    asked_for = asked(TEMPLATE)
    assert asked_for.steering == Steering(
        dns=DnsCapture(tcp=False, over_loopback=True), exclude_owner_ports=(TCP_QUERIES,)
    )
    assert asked_for.settings == PlanSettings(owners=Owners(Ranges.of(5678)))
    assert asked_for.families is Families.ALL
    assert [note.partition(":")[0] for note in asked_for.notes] == ["--verbose"]


def test_queries_over_tcp_go_direct_even_where_53_is_excluded_for_tcp() -> None:
    """B34: kuma PR #14557, #15401; --exclude-outbound-ports is of TCP in Kuma, and must not take UDP queries along."""
    steering = asked("--redirect-dns --exclude-outbound-ports 53,5432").steering
    assert steering.dns == DnsCapture((ip_address("10.96.0.10"),), tcp=False, over_loopback=True)
    assert steering.exclude_outbound_ports == Ranges.of(5432)
    assert steering.exclude_owner_ports == (TCP_QUERIES,)
    assert asked("--exclude-outbound-ports 53").steering.exclude_outbound_ports == Ranges.of(53)


def test_exclusions_of_users_ports_and_networks() -> None:
    """B13, B26."""
    steering = asked(
        "--exclude-outbound-ports-for-uids tcp:53,3000-3005:2000 --exclude-outbound-ports-for-uids 12 "
        "--exclude-inbound-ports 22,9901 --exclude-inbound-ips 10.0.0.0/8,10.0.0.1 --exclude-outbound-ips fd00::/8 "
        "--exclude-outbound-ips 10.1.0.0/16"
    ).steering
    assert steering.exclude_owner_ports == (
        OwnerPorts(frozenset({Protocol.TCP}), Ranges.of(53, (3000, 3005)), Ranges.of(2000)),
        OwnerPorts(frozenset(Protocol), Ranges.of((1, 65535)), Ranges.of(12)),
    )
    assert steering.exclude_inbound_ports == Ranges.of(22, 9901)
    assert steering.exclude_inbound_networks == (ip_network("10.0.0.0/8"),)
    assert steering.exclude_outbound_networks == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))


def test_inbound_of_a_gateway_is_not_steered() -> None:
    steering = asked("--redirect-inbound=false --exclude-inbound-ports 80").steering
    assert (steering.include_inbound_ports, steering.exclude_inbound_ports) == (Ranges(), Ranges())


def test_an_empty_variable_of_a_switch_says_nothing() -> None:
    assert asked(KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_ENABLED="").steering == Steering()


def test_guests_behind_interfaces_and_what_they_reach_directly() -> None:
    """B16."""
    assert asked("--vnet docker0:172.17.0.0/16 --vnet br+:172.18.0.0/16 --vnet docker0:fd00::/64").steering == Steering(
        virtual_interfaces=(
            VirtualInterface("docker0", (ip_network("172.17.0.0/16"), ip_network("fd00::/64"))),
            VirtualInterface("br+", (ip_network("172.18.0.0/16"),)),
        )
    )


@pytest.mark.parametrize(
    ("line", "passwd", "uid"),
    [
        ("", "", 5678),
        ("", "kuma-dp:x:700:\n", 700),
        ("", "kuma-dp:x:700:\nother:x:5678:\n", 5678),
        ("--kuma-dp-user kuma-dp", "kuma-dp:x:700:\n", 700),
        ("--kuma-dp-uid 800", "", 800),
        ("--kuma-dp-uid 800 --kuma-dp-user 900", "", 900),
    ],
)
def test_the_user_is_the_flags_else_5678_else_kuma_dp(line: str, passwd: str, uid: int) -> None:
    around = Surroundings(Accounts.of(passwd, ""))
    assert asked(line, around=around).settings.owners == Owners(Ranges.of(uid))


CONFIG = """
kumaDPUser: 6000
ipFamilyMode: ipv4
redirect:
  dns: {enabled: true, captureAll: false, port: 25053, resolvConfigPath: /etc/resolv.conf}
  inbound: {enabled: true, port: 25006, excludePorts: [22, 9901], excludePortsForIPs: ["10.9.0.0/16"]}
  outbound: {port: 25001, excludePorts: "5432,5433", excludePortsForUIDs: ["tcp:80,443:1", "2"]}
  vnet: {networks: ["br+:172.18.0.0/16"]}
dropInvalidPackets: true
wait: 5
retry: {maxRetries: 4, sleepBetweenRetries: 2s}
"""


def test_a_configuration_says_the_same_as_the_flags() -> None:
    asked_for = asked(config=CONFIG)
    owner_ports = (
        OwnerPorts(frozenset(Protocol), Ranges.of(80, 443), Ranges.of(1)),
        OwnerPorts(frozenset(Protocol), Ranges.of((1, 65535)), Ranges.of(2)),
    )
    assert asked_for.steering == Steering(
        exclude_inbound_ports=Ranges.of(22, 9901),
        exclude_inbound_networks=(ip_network("10.9.0.0/16"),),
        exclude_outbound_ports=Ranges.of((5432, 5433)),
        exclude_owner_ports=(
            OwnerPorts(frozenset({Protocol.TCP}), owner_ports[0].ports, owner_ports[0].uids),
            owner_ports[1],
            TCP_QUERIES,
        ),
        virtual_interfaces=(VirtualInterface("br+", (ip_network("172.18.0.0/16"),)),),
        dns=DnsCapture((ip_address("10.96.0.10"),), tcp=False, over_loopback=True),
        drop_invalid=True,
    )
    assert asked_for.settings == PlanSettings(
        outbound_port=25001, inbound_port=25006, dns_port=25053, owners=Owners(Ranges.of(6000))
    )
    assert asked_for.families is Families.IPV4
    assert asked_for.notes == ()
    plan_of(asked_for.steering, asked_for.settings)


def test_numbers_with_a_colon_are_read_as_they_are_written() -> None:
    """YAML 1.1 reads 80:1 as 4801."""
    config = "redirect: {outbound: {excludePortsForUIDs: [80:1]}}"
    assert asked(config=config).steering.exclude_owner_ports == (
        OwnerPorts(frozenset(Protocol), Ranges.of(80), Ranges.of(1)),
    )


def test_of_a_configuration_only_what_is_unusual_is_noted() -> None:
    """One that a program wrote spells all defaults out."""
    config = "wait: 6\nretry: {maxRetries: 4}\nlog: {enabled: false, level: 7}\nredirect: {dns: , vnet: {networks: }}"
    assert asked(config=config).notes == ("--config: wait: nothing to do: locks are the pod's own, and waited for",)


def test_a_flag_is_stronger_than_a_variable_and_that_than_a_file() -> None:
    config = "redirect: {outbound: {port: 1001, excludePorts: [1]}, inbound: {port: 1002}}"
    environ = {"KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_PORT": "2001"}
    asked_for = asked("--redirect-inbound-port 3002 --exclude-outbound-ports 3", config, **environ)
    assert (asked_for.settings.outbound_port, asked_for.settings.inbound_port) == (2001, 3002)
    assert asked_for.steering.exclude_outbound_ports == Ranges.of(3)


def test_a_later_file_is_stronger_than_an_earlier_one() -> None:
    configs = [ConfigText("--config", "wait: 1\nkumaDPUser: '1'"), ConfigText("--config", "kumaDPUser: '2'")]
    assert request([], {}, AROUND, configs).settings.owners == Owners(Ranges.of(2))


def test_included_ports_of_a_file_decide_alone() -> None:
    config = "redirect: {inbound: {includePorts: [80], excludePorts: [80, 81]}, outbound: {includePorts: '443'}}"
    steering = asked("--exclude-outbound-ports 443", config).steering
    assert (steering.include_inbound_ports, steering.exclude_inbound_ports) == (Ranges.of(80), Ranges())
    assert (steering.include_outbound, steering.exclude_outbound_ports) == (Included(Ranges.of(443)), Ranges())
    assert asked(config="redirect: {outbound: {enabled: false}}").steering.include_outbound == Included()


def test_users_of_a_variable_stand_between_commas() -> None:
    variable = "KUMA_TRANSPARENT_PROXY_REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_UIDS"
    assert len(asked(**{variable: "tcp:80:1,udp:53:2"}).steering.exclude_owner_ports) == 2


@pytest.mark.parametrize(
    ("line", "sources", "paths"),
    [
        ("--transparent-proxy-config a.yaml,b.yaml", ["a.yaml", "b.yaml"], True),
        ("--transparent-proxy-config=-", ["-"], True),
        ("--transparent-proxy-config={redirect:{}}", ["{redirect:{}}"], False),
        ("--config wait:1", ["wait:1"], False),
        ("--config-file=/tmp/kumactl/config", ["/tmp/kumactl/config"], True),
    ],
)
def test_configuration_is_text_or_a_path(line: str, sources: list[str], paths: bool) -> None:
    found = config_sources(line.split())
    assert [source.text for source in found] == sources
    assert all(is_path(source) is paths for source in found)


def test_kumactls_own_configuration_says_nothing_of_redirection() -> None:
    own = ConfigText("--config-file /tmp/kumactl/config", "contexts:\n- name: local\ncontrolPlanes: []\n")
    assert request([], {}, AROUND, [own]) == asked()


@pytest.mark.parametrize(
    ("line", "backend"),
    [
        ("iptables:/sbin/iptables-nft,ip6tables-save:/sbin/ip6tables-nft-save", Backend.IPTABLES_NFT),
        ("iptables-restore:/usr/sbin/iptables-legacy-restore", Backend.IPTABLES_LEGACY),
    ],
)
def test_named_programs_choose_the_backend(line: str, backend: Backend) -> None:
    assert asked(f"--iptables-executables {line}").backend is backend


@pytest.mark.parametrize(
    ("line", "config", "flag", "reason"),
    [
        ("--redirect-dns --redirect-all-dns-traffic", "", "--redirect-all-dns-traffic", "one of both"),
        ("--store-firewalld", "", "--store-firewalld", "no firewalld"),
        ("--ebpf-enabled", "", "--ebpf-enabled", "eBPF does not redirect here"),
        ("--exclude-outbound-tcp-ports-for-uids 80:1", "", "--exclude-outbound-tcp-ports-for-uids", "write --exclude"),
        ("--exclude-outbound-ports-for-uids 80:*", "", "--exclude-outbound-ports-for-uids", "names no user"),
        ("--exclude-outbound-ports-for-uids icmp:80:1", "", "--exclude-outbound-ports-for-uids", "no protocol"),
        ("--exclude-inbound-ports 70000", "", "--exclude-inbound-ports", "no port"),
        ("--ip-family-mode ipv6", "", "--ip-family-mode", "dualstack or ipv4"),
        ("--kuma-dp-user nobody-knows", "", "--kuma-dp-user", "no user of /etc/passwd"),
        ("--vnet br;:10.0.0.0/8", "", "--vnet", "no interface name"),
        ("--vnet br0:10.0.0.0", "", "", ""),
        ("--iptables-executables iptables:/opt/iptables", "", "--iptables-executables", "-legacy"),
        ("--iptables-executables iptables:/a/iptables-nft,x:/a/iptables-legacy", "", "--iptables-executables", "all"),
        ("", "redirect: {outbound: {prot: 1}}", "--config: redirect.outbound.prot", "no key"),
        ("", "- redirect", "--config", "no mapping"),
        ("", "a: [", "--config", "no YAML"),
        ("", "&a [*a]", "--config", "no YAML"),
        ("", "redirect: {dns: {resolvConfigPath: /tmp/x}}", "--config: redirect.dns.resolvConfigPath", "own"),
        ("", "redirect: {inbound: {port: [1, {}]}}", "--config: redirect.inbound.port", "port"),
        ("", "x" * (MAX_CHARACTERS + 1), "--config", "no configuration"),
        ("", "redirect: {inbound: {enabled: maybe}}", "--config: redirect.inbound.enabled", "neither"),
        ("--dry-run=perhaps", "", "--dry-run", "neither"),
        ("--redirect-inbound=", "", "--redirect-inbound", "neither"),
    ],
)
def test_what_cannot_be_done_is_refused_with_flag_or_key_and_reason(
    line: str, config: str, flag: str, reason: str
) -> None:
    if not flag:
        assert asked(line, config)
        return
    with pytest.raises(Refused) as refused:
        asked(line, config)
    assert refused.value.flag == flag
    assert reason in refused.value.reason
