"""istio-iptables' command lines mean what they mean to istio-iptables, or are refused by name."""

from ipaddress import ip_address, ip_network

import pytest

from agent.init.accounts import Accounts
from agent.init.istio import request
from agent.init.request import Action, Families, InitRequest, Refused, Surroundings, Validation
from agent.kernel.backends import Backend
from agent.plan import InvalidPlan, PlanSettings, plan_of
from agent.plan.ranges import Ranges
from agent.plan.steering import DnsCapture, Included, Owners, Steering, VirtualInterface

AROUND = Surroundings(
    Accounts.of("root:x:0:0::/root:/bin/sh\nistio-proxy:x:1500:1500::/:\nenvoy:x:1600:1600::/:\n", "mesh:x:2000:\n"),
    "search default.svc.cluster.local\nnameserver 10.96.0.10\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n",
)
BARE = Surroundings()
TEMPLATE = [
    *("istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*"),
    *("-d", "15090,15021,15020", "--log_output_level=default:info"),
]
"""injection-template.yaml with Istio's own defaults."""

TOO_MANY = ",".join(map(str, range(65)))


def asked(line: str = "", around: Surroundings = AROUND, **environ: str) -> InitRequest:
    return request(line.split(), environ, around)


def template(*more: str) -> InitRequest:
    return request([*TEMPLATE, *more], {}, BARE)


def test_the_usual_template_steers_everything_but_istios_own_ports() -> None:
    asked_for = template()
    assert asked_for.steering == Steering(exclude_inbound_ports=Ranges.of(15090, 15021, 15020))
    assert asked_for.settings == PlanSettings(owners=Owners(Ranges.of(1337), Ranges.of(1337)))
    assert (asked_for.action, asked_for.backend, asked_for.netns) == (Action.INSTALL, None, None)
    assert asked_for.families is Families.FIRST_ADDRESS
    assert [note.partition(":")[0] for note in asked_for.notes] == ["--log_output_level"]


def test_without_a_word_nothing_is_captured_as_istio_iptables_has_it() -> None:
    steering = asked().steering
    assert steering.include_inbound_ports == Ranges()
    assert steering.include_outbound == Included()


@pytest.mark.parametrize(
    ("line", "included", "excluded"),
    [
        ("-b *", None, Ranges()),
        ("-b * -d 9090,15021", None, Ranges.of(9090, 15021)),
        ("-b 8080,9090", Ranges.of(8080, 9090), Ranges()),
        ("-b 8080,9090 -d 9090", Ranges.of(8080, 9090), Ranges()),
        ("-b 8000:8005", Ranges.of((8000, 8005)), Ranges()),
        ("-b= -d 9090", Ranges(), Ranges()),
    ],
)
def test_inbound_ports_are_all_or_a_list_or_none_and_exclusions_count_with_all_of_them(
    line: str, included: Ranges | None, excluded: Ranges
) -> None:
    """B25; -d is read with `*` only (run.go: handleInboundPortsInclude)."""
    steering = asked(line).steering
    assert (steering.include_inbound_ports, steering.exclude_inbound_ports) == (included, excluded)


@pytest.mark.parametrize(
    ("line", "included"),
    [
        ("-i *", None),
        ("-i * -q 9000", None),
        ("-i 10.0.0.0/8,fd00::/8", Included(networks=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")))),
        ("-q 9000,9001", Included(Ranges.of((9000, 9001)))),
        ("-i 10.0.0.0/8 -q 9000", Included(Ranges.of(9000), (ip_network("10.0.0.0/8"),))),
        ("-q 80,443 -o 443", Included(Ranges.of(80))),
        ("-i 10.1.0.0/16,10.2.0.0/16 -x 10.1.0.0/16", Included(networks=(ip_network("10.2.0.0/16"),))),
    ],
)
def test_outbound_is_everything_or_what_networks_and_ports_include_less_what_is_excluded(
    line: str, included: Included | None
) -> None:
    """B12: exclusions stand first in Istio's chain."""
    asked_for = asked(line)
    assert asked_for.steering.include_outbound == included
    plan_of(asked_for.steering, asked_for.settings)


def test_several_users_are_one_set_and_groups_follow_them_unless_named() -> None:
    """B7."""
    assert asked("-u 3,4").settings.owners == Owners(Ranges.of(3, 4), Ranges.of(3, 4))
    assert asked("-u 3,4 -g 1,2").settings.owners == Owners(Ranges.of(3, 4), Ranges.of(1, 2))


@pytest.mark.parametrize(
    ("line", "around", "environ", "uid"),
    [
        ("", AROUND, {}, 1500),
        ("", BARE, {}, 1337),
        ("", AROUND, {"ENVOY_USER": "envoy"}, 1600),
        ("", BARE, {"ENVOY_USER": "1700"}, 1700),
        ("-u envoy", AROUND, {"ENVOY_USER": "root"}, 1600),
        ("", AROUND, {"PROXY_UID": "42"}, 42),
        ("-u 43", AROUND, {"PROXY_UID": "42"}, 43),
    ],
)
def test_the_user_is_the_flags_else_envoys_of_the_container_else_1337(
    line: str, around: Surroundings, environ: dict[str, str], uid: int
) -> None:
    assert request(line.split(), environ, around).settings.owners == Owners(Ranges.of(uid), Ranges.of(uid))


@pytest.mark.parametrize(
    ("line", "around", "dns"),
    [
        ("--redirect-dns", AROUND, (ip_address("10.96.0.10"), ip_address("127.0.0.53"))),
        ("--redirect-dns --capture-all-dns", AROUND, None),
    ],
)
def test_dns_goes_to_the_listener_of_those_servers_also_over_lo(
    line: str, around: Surroundings, dns: tuple[object, ...] | None
) -> None:
    assert asked(line, around).steering.dns == DnsCapture(dns, over_loopback=True)  # type: ignore[arg-type]


def test_dns_without_a_server_to_capture_is_said_and_not_steered() -> None:
    asked_for = asked("--redirect-dns", BARE)
    assert asked_for.steering.dns is None
    assert "names no server" in asked_for.notes[0]


def test_all_dns_counts_with_redirect_dns_only() -> None:
    assert asked("--capture-all-dns").steering.dns is None


@pytest.mark.parametrize("variable", ["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"])
def test_dns_is_also_asked_for_by_the_environment(variable: str) -> None:
    assert asked(**{variable: "true"}).steering.dns is not None


def test_the_environment_speaks_for_flags_and_a_flag_is_stronger() -> None:
    """pkg/flag: BindEnv sets what the flag then overrides; the additional variable is read last."""
    asked_for = asked(
        "-o 443",
        ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE="80",
        ISTIO_SERVICE_CIDR="*",
        ISTIO_INBOUND_PORTS="*",
        DROP_INVALID="false",
        INVALID_DROP="1",
        ENVOY_PORT="9999",
    )
    assert asked_for.steering.exclude_outbound_ports == Ranges.of(443)
    assert asked_for.steering.include_outbound is None
    assert asked_for.steering.drop_invalid
    assert asked_for.settings.outbound_port == 15001


def test_groups_limit_what_is_steered_by_number_or_by_name() -> None:
    """B14."""
    assert asked(ISTIO_OUTBOUND_OWNER_GROUPS="mesh,2002").steering.include_gids == Ranges.of(2000, 2002)
    assert asked(ISTIO_OUTBOUND_OWNER_GROUPS="*").steering.include_gids is None
    assert asked(ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE="mesh").steering.exclude_gids == Ranges.of(2000)


def test_interfaces_loopback_and_ports_of_the_proxy() -> None:
    asked_for = asked(
        "-p 16001 -z 16006 -e 16008 -c net1,net2 -k br0,docker+", ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR="127.0.0.1/32"
    )
    assert asked_for.steering.exclude_interfaces == ("net1", "net2")
    assert asked_for.steering.virtual_interfaces == (VirtualInterface("br0"), VirtualInterface("docker+"))
    settings = asked_for.settings
    assert (settings.outbound_port, settings.inbound_port, settings.tunnel_port) == (16001, 16006, 16008)
    assert str(settings.loopback4) == "127.0.0.1/32"
    assert str(asked().settings.loopback4) == "127.0.0.0/8"


@pytest.mark.parametrize(
    ("line", "backend"),
    [
        ("--native-nftables", Backend.NFTABLES),
        ("--force-iptables-binary legacy", Backend.IPTABLES_LEGACY),
        ("--force-iptables-binary nft", Backend.IPTABLES_NFT),
        ("--native-nftables --force-iptables-binary legacy", Backend.NFTABLES),
        ("--native-nftables=false", None),
    ],
)
def test_the_backend_is_the_one_that_istio_would_take(line: str, backend: Backend | None) -> None:
    assert asked(line).backend is backend


def test_what_is_to_be_done() -> None:
    assert asked("--cleanup-only").action is Action.REMOVE
    only_validate = asked("--run-validation --skip-rule-apply --probe-timeout 1m1.5s")
    assert (only_validate.action, only_validate.validation) == (Action.NOTHING, Validation(126, 61.5))
    assert asked("-n").dry_run
    assert asked("--network-namespace /run/netns/a").netns == "/run/netns/a"
    assert asked("--dual-stack").families is Families.ALL


def test_what_changes_nothing_is_told_once_with_the_reason() -> None:
    notes = asked("--reconcile --cni-mode -t 1338 --force-apply=false --reconcile --iptables-probe-port 15002").notes
    assert [note.partition(": nothing to do: ")[0] for note in notes] == [
        "--reconcile",
        "--cni-mode",
        "-t",
        "--iptables-probe-port",
    ]


@pytest.mark.parametrize(
    ("line", "environ", "flag", "value", "reason"),
    [
        ("-m TPROXY", {}, "-m", "TPROXY", "PR #52622"),
        ("", {"ISTIO_INBOUND_INTERCEPTION_MODE": "TPROXY"}, "ISTIO_INBOUND_INTERCEPTION_MODE", "TPROXY", "refused"),
        ("-b 80,70000", {}, "-b", "80,70000", "'70000' is no port"),
        ("-b 0", {}, "-b", "0", "use 1 to 65535"),
        ("-o 10-5", {}, "-o", "10-5", "ends before it begins"),
        ("-q *", {}, "-q", "*", "no port"),
        ("-i 10.0.0.0/8,*", {}, "-i", "10.0.0.0/8,*", "no address and no CIDR"),
        ("-i 127.0.0.0/8", {}, "-i", "127.0.0.0/8", "loopback is never steered"),
        ("-x *", {}, "-x", "*", "leave -i and -q empty"),
        ("-x nonsense", {}, "-x", "nonsense", "no address and no CIDR"),
        ("-u nobody-knows", {}, "-u", "nobody-knows", "no user of /etc/passwd"),
        ("", {"ENVOY_USER": "nobody-knows"}, "ENVOY_USER", "nobody-knows", "no user of /etc/passwd"),
        ("-c eth0;reboot", {}, "-c", "eth0;reboot", "no interface name"),
        ('-k a"b', {}, "-k", 'a"b', "no interface name"),
        ("-p 0", {}, "-p", "0", "port"),
        ("-p 80,81", {}, "-p", "80,81", "not one port"),
        ("--probe-timeout 5", {}, "--probe-timeout", "5", "no duration"),
        ("--probe-timeout 2h", {}, "--probe-timeout", "2h", "more than an hour"),
        ("--force-iptables-binary plain", {}, "--force-iptables-binary", "plain", "legacy or nft"),
        ("--redirect-dns=maybe", {}, "--redirect-dns", "maybe", "neither true nor false"),
        ("", {"DUAL_STACK": "maybe"}, "DUAL_STACK", "maybe", "neither true nor false"),
        ("--no-such-flag", {}, "--no-such-flag", "", "no flag of istio-iptables"),
        (
            "",
            {"ISTIO_OUTBOUND_OWNER_GROUPS": "1", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "2"},
            "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
            "2",
            "one of both",
        ),
        ("", {"ISTIO_OUTBOUND_OWNER_GROUPS": TOO_MANY}, "ISTIO_OUTBOUND_OWNER_GROUPS", TOO_MANY, "more than 64"),
        ("", {"ISTIO_OUTBOUND_OWNER_GROUPS": "nobody"}, "ISTIO_OUTBOUND_OWNER_GROUPS", "nobody", "no group"),
    ],
)
def test_what_cannot_be_done_is_refused_with_flag_value_and_reason(
    line: str, environ: dict[str, str], flag: str, value: str, reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        request(line.split(), environ, AROUND)
    assert (refused.value.flag, refused.value.value) == (flag, value)
    assert reason in refused.value.reason


def test_ports_of_the_proxy_that_are_the_same_are_no_plan() -> None:
    with pytest.raises(InvalidPlan, match="must differ"):
        asked("-p 15006")
